//! The real Debezium, in Kafka Connect and as Debezium Server.

#![allow(dead_code)] // The parts are shared with the benchmark of other relays.

#[path = "../../../benches/compare/comparison/installed.rs"]
pub mod installed;
#[path = "../../../benches/compare/comparison/java.rs"]
pub mod java;
pub mod peer;
pub mod shape;

/// A result that any error fits into.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
