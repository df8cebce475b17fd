//! Takes over from the real Debezium: same rows, both relays, equal records.
//!
//! The normal suite has a few shapes, with Kafka Connect; `make takeover` runs all of it, also with
//! Debezium Server.

mod command;
mod handover;
/// Servers, and a place of one's own on them.
#[path = "../support/mod.rs"]
mod servers;
mod shadow;
mod shapes;
mod support;
