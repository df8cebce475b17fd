//! Exactly-once delivery: Kafka transactions that contain the records and the position.
//!
//! | file | idea |
//! | --- | --- |
//! | `transactions` | begins, commits and aborts a pipeline's transactions |
//! | `failure` | says why a session of transactions failed, and what to do |
//! | `positions` | writes the topic with the newest position of each slot |
//! | `position_reader` | reads that topic, for all pipelines of a fleet |
//! | `unavailable` | remembers topics that transactions have to leave out for now |

mod failure;
mod position_reader;
mod positions;
mod transactions;
mod unavailable;

pub(crate) use self::{
    position_reader::PositionReaders,
    positions::{CLEANUP, COMPACT, Positions, compact_command},
    transactions::Transactions,
};
