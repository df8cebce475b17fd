//! Takes over from the real Debezium: same rows, both relays, equal records.
//!
//! `make takeover` runs all of it. The normal suite has a few shapes, and nothing where Debezium is
//! not installed (`scripts/bootstrap --compare`).

mod handover;
/// Servers, and a place of one's own on them.
#[path = "../support/mod.rs"]
mod servers;
mod shadow;
mod shapes;
mod support;
