//! Topics, records and formats in a real Kafka: what gets there, what is refused, and what waits.

#[path = "../support/mod.rs"]
mod support;

mod added_partitions;
mod dead_letters;
#[cfg(feature = "faults")]
mod exactly_once;
mod held_aggregates;
#[cfg(feature = "client-kafka")]
mod plain_client;
mod refused_records;
mod routing;
mod schema_registry;
mod topics;
