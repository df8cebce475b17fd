//! Outbox tables: turns the rows that are inserted into them into events, and checks that the
//! publication has the tables.
//!
//! | file | idea |
//! | --- | --- |
//! | `mapping` | pure: finds the roles of a table's columns |
//! | `row` | pure: turns one row into an event or a refusal |
//! | `connect` | pure: makes a row's record as Debezium and Kafka Connect's converters do |
//! | `partition_moves` | pure: recognizes rows that move to another partition |
//! | `parked` | pure: converts a refused row to a dead letter, and back to an event |
//! | `value` | pure: converts values from PostgreSQL's text or binary format |
//! | `binary` | pure: writes values in binary as PostgreSQL's text |
//! | `reader` | decodes the changes of a stream by the tables' OIDs |
//! | `new_tables` | looks up a table that matches a pattern and is new in the stream |
//! | `catalog` | reads the publication and the tables from the server's catalog |
//! | `findings` | pure: lists the problems in a catalog |
//! | `partitions` | pure: checks that a row's move between partitions is recognizable |
//! | `publication` | creates and checks the publication before the stream starts |
//! | `unpublished` | pure: finds ranges of rows that were committed while their table was not published |
//! | `archive` | describes a table for `factlib replay` |
//! | `old_rows` | removes rows that are old and delivered |

mod archive;
mod binary;
mod catalog;
mod connect;
mod findings;
mod mapping;
mod new_tables;
mod old_rows;
mod parked;
mod partition_moves;
mod partitions;
pub(crate) mod publication;
mod reader;
mod row;
mod unpublished;
mod value;

pub(crate) use self::{
    archive::ArchiveTable,
    catalog::{Catalog, CatalogTable, TableFacts},
    findings::{Finding, Severity},
    new_tables::NewTables,
    old_rows::{OldRowRemover, SweepResult},
    parked::ParkedRow,
    reader::{Change, OutboxReader},
    unpublished::{Moment, UnpublishedRange, UnpublishedRanges, format_time},
    value::hex,
};

#[cfg(test)]
pub(crate) use self::catalog::KnownTable;

#[cfg(test)]
mod tests;
