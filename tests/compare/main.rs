//! The comparison with other relays, without them: the checker, the tables, the page, and factlib
//! alone through all phases.

#[allow(dead_code)] // The benchmark uses the rest.
#[path = "../../benches/compare/comparison/mod.rs"]
mod comparison;
#[path = "../../benches/support/mod.rs"]
mod support;

mod checker;
mod page;
mod phases;
mod tables;
