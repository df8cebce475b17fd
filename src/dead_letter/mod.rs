//! Dead letters: events that can never be delivered where they belong, parked where
//! the operator gets them back.
//!
//! | file | idea |
//! | --- | --- |
//! | `table` | parking: the bytes of what no topic takes |
//! | `record` | the record of an event that is parked |
//! | `header` | the headers that such a record has beside its own |
//! | `letter` | one letter, and what its headers say |
//! | `event` | pure: the event that a letter was, to be routed again |
//! | `topic` | reading the letters |
//! | `ledger` | what PostgreSQL knows of them: which were redriven, the bytes kept there |
//! | `redrive` | sending them again |
//! | `schema` | the two tables |
//!
//! # What was redriven is remembered
//! In the table `factlib.redriven`, a row a letter, written after Kafka acknowledged
//! the record: letters are redriven in any order, so a position would not do. A
//! marker in the dead-letter topic would be a letter to every other reader of it, and
//! would expire apart from the letter that it is about. A crash between the
//! acknowledgement and the row sends that one letter again, with the same event id.

mod event;
mod header;
mod ledger;
mod letter;
mod record;
mod redrive;
mod schema;
mod table;
mod topic;

pub use self::{
    ledger::{Kept, Ledger},
    letter::{Letter, LetterFilter, LetterPosition},
    redrive::{Redriver, RedriverBuilder, Resent},
    topic::{DeadLetterTopic, Letters},
};
pub(crate) use self::{
    record::{LetterForm, is_kept_in_table, kept_text, record},
    schema::{CREATE_TABLES, TABLE},
    table::DeadLetterTable,
};
