//! Kafka: the client and its settings, records, topics.

pub(crate) mod admin;
mod client;
mod errors;
pub(crate) mod producer;
pub(crate) mod record;
