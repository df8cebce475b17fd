//! Real servers for tests: PostgreSQL, Apache Kafka, a schema registry, and a network that breaks.
//!
//! - [`PostgresServer`] and [`KafkaServer`]: throwaway servers on ports of 127.0.0.1. They are
//!   stopped and their folders removed when they are dropped, and also when the test panics or its
//!   process is killed. [`PostgresServer::standby`] makes a physical standby.
//! - [`shared_postgres`] and [`shared_kafka`]: one of each for the whole process. Each test makes
//!   its own database and topics there.
//! - [`FakeCluster`](fake_broker::FakeCluster): a Kafka cluster inside the process, which fails by
//!   script.
//! - [`SchemaRegistry`]: a throwaway schema registry with Confluent's API.
//! - [`Proxy`]: a TCP proxy that pauses, slows down or resets connections.
//! - [`Program`]: a program under test, which ends with the test.
//! - [`create_topic`], [`read_topic`], [`each_record`], [`wait_for_count`], [`topic_names`]: topics
//!   and their records.
//! - [`grant`], [`deny`], [`lift_denials`], [`grant_transactions`]: ACLs. [`limit_rate`]: quotas.
//!   [`move_leaders`]: leaders of partitions.
//! - [`Authority`], [`SelfSigned`]: certificates. [`CollectedLogs`]: log lines.
//!
//! ```no_run
//! # async fn example() -> factlib_testing::Result<()> {
//! let server = factlib_testing::shared_postgres().await?;
//! let database = server.create_database("orders").await?;
//! server.execute(&database, "CREATE TABLE orders (id int PRIMARY KEY)").await?;
//! println!("{}", server.url_for(&database));
//! # Ok(())
//! # }
//! ```
//!
//! # Server programs
//! The servers are those of this machine: the crate downloads nothing. An error names what is
//! missing and how to get it.
//!
//! | program | where it is looked for, in this order |
//! | --- | --- |
//! | PostgreSQL (14 or later) | `FACTLIB_PG_BIN`, `/usr/lib/postgresql/*/bin`, the `PATH`, `pg_config --bindir`, the cache |
//! | Kafka's jars | `FACTLIB_KAFKA_LIBS`, the cache; of the last Kafka before 4.0: `FACTLIB_OLD_KAFKA_LIBS`, the cache; of the last before 3.0: `FACTLIB_OLDEST_KAFKA_LIBS`, the cache |
//! | Apicurio Registry | `FACTLIB_REGISTRY_HOME`, the cache |
//! | Java (17 or later) | `JAVA_HOME`, the `PATH` |
//!
//! The cache is the folder `FACTLIB_CACHE`, or `~/.cache/factlib`; `make bootstrap` in factlib's
//! repository fills it.
//!
//! # Features
//! None is enabled by default: PostgreSQL, [`Proxy`] and [`Program`] need no C library.
//!
//! | feature | adds |
//! | --- | --- |
//! | `kafka` | [`KafkaServer`], topics and ACLs |
//! | `librdkafka` | nothing, but builds librdkafka and reads topics with it |
//! | `fake-broker` | [`fake_broker`] |
//! | `certificates` | [`Authority`], [`SelfSigned`] |
//! | `schema-registry` | [`SchemaRegistry`], with `certificates` |
//! | `logs` | [`CollectedLogs`], for `slog` |

// The overview links to items of all features.
#![cfg_attr(
    not(all(
        feature = "certificates",
        feature = "fake-broker",
        feature = "kafka",
        feature = "logs",
        feature = "schema-registry"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "kafka")]
mod acls;
#[cfg(feature = "kafka")]
mod admin_request;
mod cache;
#[cfg(feature = "certificates")]
mod certificate;
mod error;
#[cfg(feature = "fake-broker")]
#[cfg_attr(docsrs, doc(cfg(feature = "fake-broker")))]
pub mod fake_broker;
#[cfg(any(feature = "kafka", feature = "schema-registry"))]
mod java;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod leaders;
#[cfg(feature = "logs")]
mod logs;
mod ports;
mod postgres;
mod process;
mod program;
mod proxy;
#[cfg(feature = "kafka")]
mod quotas;
#[cfg(feature = "schema-registry")]
mod schema_registry;
mod shared;
#[cfg(feature = "kafka")]
mod topics;

#[cfg(feature = "certificates")]
#[cfg_attr(docsrs, doc(cfg(feature = "certificates")))]
pub use self::certificate::{Authority, SelfSigned, Signed};
#[cfg(feature = "logs")]
#[cfg_attr(docsrs, doc(cfg(feature = "logs")))]
pub use self::logs::{CollectedLogs, LogLine};
#[cfg(feature = "schema-registry")]
#[cfg_attr(docsrs, doc(cfg(feature = "schema-registry")))]
pub use self::schema_registry::SchemaRegistry;
#[cfg(feature = "kafka")]
#[cfg_attr(docsrs, doc(cfg(feature = "kafka")))]
pub use self::{
    acls::{TopicRight, deny, grant, grant_transactions, lift_denials},
    kafka::{KafkaServer, KafkaServerBuilder},
    leaders::move_leaders,
    quotas::limit_rate,
    shared::shared_kafka,
    topics::{ConsumedRecord, create_topic, each_record, read_topic, topic_names, wait_for_count},
};
pub use self::{
    error::{Error, ErrorKind, ErrorParts, Result},
    postgres::{PostgresServer, PostgresServerBuilder, StandbyBuilder, StopMode},
    program::Program,
    proxy::Proxy,
    shared::shared_postgres,
};
