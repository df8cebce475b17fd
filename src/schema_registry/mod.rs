//! Confluent's framing: a value behind the id of the schema that it is written by.
//!
//! | file | idea |
//! | --- | --- |
//! | `registry` | what the registry said, kept; asked once for many records |
//! | `client` | the registry over HTTP (feature `schema-registry`) |
//!
//! # Failure
//! A batch whose ids are not known waits, and what is behind it in its topic, until the registry
//! has answered. A registry that is away fails the topic's lane, which is opened again after a
//! pause: nothing is lost and nothing overtakes. A schema that the registry does not have or does
//! not take refuses the events that need it, as Kafka refuses a record.

#[cfg(feature = "schema-registry")]
mod client;
mod registry;

pub(crate) use self::registry::Registry;
