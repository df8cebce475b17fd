//! Kafka: the client and its settings, records, topics.

pub(crate) mod admin;
mod certificate;
pub(crate) mod client;
pub(crate) mod clients;
mod complaints;
mod disconnects;
pub(crate) mod errors;
pub(crate) mod part;
#[cfg(feature = "client-kafka")]
pub(crate) mod plain;
mod polled;
pub(crate) mod positions;
pub(crate) mod producer;
pub(crate) mod reader;
pub(crate) mod record;
mod reports;
mod room;
mod statistics;
mod transaction_log;
pub(crate) mod transactions;
mod unavailable;
