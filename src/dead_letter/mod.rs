//! Dead letters: parks events that can't be delivered, lists them, and redrives them.
//!
//! | file | idea |
//! | --- | --- |
//! | `table` | stores the bytes of events that no topic takes |
//! | `record` | pure: makes the record of a dead letter |
//! | `header` | names the headers that such a record adds |
//! | `letter` | reads one letter's record and headers |
//! | `event` | pure: restores a letter's event, to be routed again |
//! | `topic` | reads the dead-letter topic |
//! | `ledger` | records in PostgreSQL which letters were redriven, and reads bytes stored there |
//! | `redrive` | sends letters again |
//! | `held` | holds back the later events of an aggregate, in a table |
//! | `schema` | creates the two tables |
//!
//! # Redriven letters are recorded
//! The table `factlib.redriven` gets one row per letter after Kafka acknowledged the record. A position
//! would not do, because letters are redriven in any order. A marker in the dead-letter topic would
//! look like a letter to its other readers, and would expire at another time than the letter. A crash
//! between the acknowledgement and the row sends one letter again, with the same event id.

mod event;
mod header;
mod held;
mod ledger;
mod letter;
mod record;
mod redrive;
mod schema;
mod table;
mod topic;

pub(crate) use self::{
    held::{CREATE_HELD_EVENTS, Held, HeldEvents, HeldSummary, RefusedBefore, aggregate_hash},
    record::{is_kept_in_table, kept_beginning, kept_text, record},
    schema::{CREATE_TABLES, TABLE},
    table::DeadLetterTable,
};
pub use self::{
    held::{HeldLine, HeldLines},
    ledger::{Kept, Ledger},
    letter::{Letter, LetterFilter, LetterPosition},
    redrive::{Redriver, RedriverBuilder, Resent},
    topic::{DeadLetterTopic, Letters},
};
