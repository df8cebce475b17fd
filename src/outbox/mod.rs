//! Outbox tables: rows that were inserted there, as events.
//!
//! | file | idea |
//! | --- | --- |
//! | `mapping` | pure: which column of a table is what |
//! | `row` | pure: one row in, an event or what is wrong with it out |
//! | `moves` | pure: rows of a partitioned table that move to another partition |
//! | `parked` | pure: rows that are no events, as dead letters have them, and back |
//! | `value` | pure: columns as PostgreSQL writes them as text |
//! | `reader` | the tables of a stream, by the OIDs that it uses |
//! | `catalog` | what the server's catalog says of the publication and the tables |
//! | `findings` | pure: what is wrong with what the catalog says |
//! | `partitions` | pure: what has to be published so that rows can move |
//! | `publication` | what has to be there before the stream starts |
//! | `unpublished` | pure: which rows were committed while their table was not published |
//! | `archive` | a table of events, for whoever reads it by SQL |
//! | `old_rows` | rows that are delivered and old, removed |

mod archive;
mod catalog;
mod findings;
mod mapping;
mod moves;
mod old_rows;
mod parked;
mod partitions;
pub(crate) mod publication;
mod reader;
mod row;
mod unpublished;
mod value;

pub(crate) use self::{
    archive::ArchiveTable,
    catalog::{Catalog, partitioned},
    findings::{Finding, Severity},
    old_rows::{OldRows, Swept},
    parked::ParkedRow,
    reader::{Change, OutboxReader},
    unpublished::{Gap, Moment, Unpublished, time},
    value::hex as binary_id,
};

#[cfg(test)]
mod tests;
