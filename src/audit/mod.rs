//! Holds the rows of a table against the records of topics: what was lost, repeated, changed, or came
//! in another order.
//!
//! | file | idea |
//! | --- | --- |
//! | `fault` | names what can be wrong with a record |
//! | `comparison` | pure: expects records, sees those of the topics, finds faults |
//! | `digest` | remembers a record by three hashes |
//! | `auditor` | reads the table, the dead letters and the topics |
//! | `trace` | looks for one event in all of them |
//!
//! # Order
//! Rows are expected in the order of their time and then their id, as for a [`replay`](crate::replay).
//!
//! # Memory
//! About 250 bytes per row. The topics are read record by record.

mod auditor;
mod comparison;
mod digest;
mod fault;
#[cfg(test)]
mod tests;
mod trace;

pub use self::{
    auditor::{Audit, AuditOptions, Totals},
    fault::{Fault, FaultKind},
    trace::{FoundLetter, FoundRecord, RelayPosition, RoutedTo, Trace, TraceOptions},
};
