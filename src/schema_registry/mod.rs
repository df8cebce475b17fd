//! Looks schemas up in a schema registry, for formats with Confluent's framing: a schema id before
//! each value.
//!
//! | file | idea |
//! | --- | --- |
//! | `registry` | caches the registry's answers, so that it is asked once for many records |
//! | `client` | asks the registry over HTTP (feature `schema-registry`) |
//!
//! # Failure
//! A batch whose schema ids are unknown waits until the registry has answered, and so do the
//! batches behind it in its topic. If the registry is unavailable, the topic's lane fails and is
//! reopened after a pause: nothing is lost, and the order is kept. If the registry lacks a schema
//! or does not accept it, the events that need it are refused, as if Kafka had refused them.

#[cfg(feature = "schema-registry")]
mod client;
mod registry;

pub(crate) use self::registry::Registry;
