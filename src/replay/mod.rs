//! Replays past facts from the rows of a table.
//!
//! | file | idea |
//! | --- | --- |
//! | `archive` | reads rows in order, as events |
//! | `row_records` | makes the records of a row |
//! | `replayer` | sends many records at once, and confirms them in order |
//!
//! # Order
//! Rows are replayed by their time and then by their id. `docs/retention-and-replay.md` says when that
//! is the order in which the facts were emitted.
//!
//! # Memory
//! One row is read at a time, and the bytes in flight to Kafka are bounded by `pipeline.window`.
//!
//! # Failure
//! The replay waits for Kafka during an outage. Any other error ends it; [`Replayer::confirmed`] is then
//! the row after which to continue: it and all rows before it are acknowledged.

mod archive;
mod replayer;
mod row_records;

pub(crate) use self::{archive::ids_among, row_records::RowRecords};
pub use self::{
    archive::{Archive, ArchivedRow, Selection},
    replayer::{REPLAY_HEADER, Replayer},
};
