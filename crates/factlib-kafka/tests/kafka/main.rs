//! The client against real brokers: Apache Kafka, started and ended by the tests.

mod client;
mod delivery;
mod fake;
mod faults;
mod group;
mod growth;
mod numbered;
mod refusals;
mod resumption;
mod security;
mod shared_connections;
mod transactions;
