//! Outbox tables on real servers: rows that transactions insert arrive in Kafka, by
//! factlib's and by Debezium's conventions, on old and new PostgreSQL.

#[path = "../support/mod.rs"]
mod support;

mod binary;
mod changes;
mod debezium;
mod encodings;
mod history;
mod mapped;
mod moves;
mod parked;
mod patterns;
mod publication;
mod retention;
mod start_check;
mod times;
mod types;
mod units;
mod versions;
