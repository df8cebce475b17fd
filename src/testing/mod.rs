//! Real servers and observers for tests of pipelines (feature `test-util`).
//!
//! - [`PostgresServer`] and [`KafkaServer`]: throwaway servers, stopped and removed
//!   when they are dropped and when the process ends in whatever way;
//!   [`shared_postgres`] and [`shared_kafka`] are one of each for the whole process,
//!   in which a test makes a database, a slot and topics of its own.
//! - [`SchemaRegistry`]: the same for schemas.
//! - [`Proxy`]: a network between client and server that stalls, crawls or breaks.
//! - [`Program`]: the real binary under test.
//! - [`handler_batch`]: a batch for a handler actor, without a pipeline.
//! - [`read_topic`] and its neighbours: what is in Kafka.
//! - [`grant`]: rights in a Kafka that asks for them.
//! - [`CollectedLogs`]: what was logged. [`Authority`], [`SelfSigned`]: certificates.
//!
//! The servers are those of the machine; `make bootstrap` gets what is missing.

mod acls;
mod certificate;
mod handler_batch;
mod java;
mod kafka;
mod logs;
mod ports;
mod postgres;
mod process;
mod program;
mod proxy;
mod schema_registry;
mod shared;
mod topics;

pub use self::{
    acls::{TopicRight, deny, grant, grant_transactions},
    certificate::{Authority, SelfSigned, Signed},
    handler_batch::{BatchAnswer, handler_batch},
    kafka::{KafkaServer, KafkaServerBuilder},
    logs::{CollectedLogs, LogLine},
    postgres::{PostgresServer, PostgresServerBuilder, StopMode},
    program::Program,
    proxy::Proxy,
    schema_registry::SchemaRegistry,
    shared::{shared_kafka, shared_postgres},
    topics::{ConsumedRecord, create_topic, each_record, read_topic, topic_names, wait_for_count},
};

/// Where `scripts/bootstrap` puts what it fetches.
fn cache_folder() -> std::path::PathBuf {
    if let Some(folder) = std::env::var_os("FACTLIB_CACHE") {
        return folder.into();
    }
    std::env::home_dir().unwrap_or_default().join(".cache/factlib")
}
