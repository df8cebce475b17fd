//! Exactly-once: Kafka transactions with the position in them.
//!
//! | file | idea |
//! | --- | --- |
//! | `transactions` | the sessions of a pipeline: begun, committed, given up |
//! | `positions` | the topic that has the newest position of each slot |
//! | `unavailable` | topics that a transaction has to leave out for now |

mod positions;
mod transactions;
mod unavailable;

pub(crate) use self::{
    positions::{CLEANUP, COMPACT, Positions, compact_command},
    transactions::Transactions,
};
