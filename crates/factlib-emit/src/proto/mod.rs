//! The event on the wire: prost's code for `proto/factlib/v1/outbox.proto`.
//!
//! `factlib.v1.rs` is generated and committed, so that nobody who depends on this crate runs a
//! build script. `make proto` generates it again, and a test compares it with the schema.

include!("factlib.v1.rs");
