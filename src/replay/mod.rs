//! Facts of the past, sent again from the rows of a table.
//!
//! | file | idea |
//! | --- | --- |
//! | `archive` | reading: rows in their order, as the events that they are |
//! | `replayer` | sending: many records on their way, confirmed in their order |
//!
//! # Order
//! By the row's time and then its id: see `docs/retention-and-replay.md` for when that is the
//! order in which the facts were emitted.
//!
//! # Memory
//! One row is read at a time, and what is on its way into Kafka is bounded by `pipeline.window`.
//!
//! # Failure
//! An outage of Kafka is waited for. All else ends the replay; [`Replayer::confirmed`] is then
//! the row to go on after: it and all before it are acknowledged.

mod archive;
mod replayer;

pub use self::{
    archive::{Archive, ArchivedRow, Selection},
    replayer::{REPLAY_HEADER, Replayer},
};
