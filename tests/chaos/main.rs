//! Faults against the real binary and the real servers, held against the history.
//!
//! Each scenario emits facts, breaks something, lets the pipeline recover, reads
//! all topics back and says what the history checker found. `cargo test` runs
//! the short form of each; `make chaos` runs all at full length, one after the
//! other, and prints a table (see docs/reliability.md).
//!
//! The seed decides what is emitted and when a fault strikes; what the machine
//! makes of that moment differs from run to run.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod context;
mod disk;
mod fleet;
mod matrix;
mod moved_records;
mod outbox_rows;
mod outcome;
mod scenarios;
mod table;
mod trio;

pub use self::{
    context::Ctx,
    outcome::Outcome,
    support::relay::{Launch, Relay, exactly_once},
};

/// The full length of all scenarios, or of those whose name contains
/// `CHAOS_SCENARIO`; with `CHAOS_MARKDOWN`, as the table of docs/reliability.md.
#[tokio::test]
#[ignore = "takes long: make chaos"]
async fn full() {
    assert!(table::run(scenarios::ALL).await, "a promise was broken");
}
