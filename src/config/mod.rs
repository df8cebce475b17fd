//! The configuration of a relay, one file per section.
//!
//! [`Config`] is plain data with defaults; [`Config::validate`] refuses contradictions. The binary
//! fills it from a file, the environment and flags (`load`) and prints all settings (`reference`,
//! `manual`); a program that embeds the relay fills it as it likes.

mod checkpoint;
mod command;
mod connect;
mod dead_letter;
mod delivery;
#[cfg(feature = "cli")]
mod environment;
#[cfg(feature = "cli")]
mod explain;
#[cfg(feature = "cli")]
mod file;
mod fleet;
mod http;
mod kafka;
#[cfg(feature = "cli")]
mod kubernetes;
#[cfg(feature = "cli")]
pub(crate) mod load;
mod log;
#[cfg(feature = "cli")]
pub(crate) mod manual;
mod outbox;
mod pipeline;
mod plain_client;
mod postgres;
mod properties;
mod receipts;
#[cfg(feature = "cli")]
pub(crate) mod reference;
mod retention;
mod schema_registry;
mod secret;
#[cfg(feature = "cli")]
mod secret_file;
mod size;
mod table_name;
mod validate;

use serde::{Deserialize, Serialize};

pub(crate) use self::table_name::{TableName, TablePattern};
pub use self::{
    checkpoint::{CheckpointConfig, StoreKind},
    command::CommandLine,
    connect::{ConnectRecords, Converter},
    dead_letter::{DeadLetterConfig, RefusalPolicy},
    delivery::{DeliveryConfig, DeliveryMode, WaitForStandbys, WaitForVisibility},
    fleet::{FleetConfig, UnhealthyWhen},
    http::HttpConfig,
    kafka::{KafkaClient, KafkaConfig, PartitionsAdded, TlsVerification, TopicCreation},
    log::{LogConfig, LogFormat, LogLevel},
    outbox::{ChangePolicy, OutboxColumns, OutboxPreset, OutboxTable, TimeUnit},
    pipeline::PipelineConfig,
    postgres::{PostgresConfig, Source},
    receipts::{ReceiptStore, ReceiptsConfig},
    retention::RetentionConfig,
    schema_registry::SchemaRegistryConfig,
};
pub(crate) use crate::mistake::Mistake;
use crate::routing::RoutingSettings;
pub use crate::{
    format::{Format, SubjectStrategy},
    kafka::Compression,
    routing::settings::{Route, RouteMatch, Unrouted},
};

/// The table that [`Emitter::archive`](crate::emit::Emitter::archive) writes to by convention.
pub const ARCHIVE_TABLE: &str = "public.outbox_events";

/// The whole configuration of a relay.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Source of events.
    pub postgres: PostgresConfig,
    /// Outbox tables, whose new rows are events, each an `[[outbox]]`: see
    /// docs/outbox-tables.md. With one, the relay reads no logical messages.
    pub outbox: Vec<OutboxTable>,
    /// Destination of events.
    pub kafka: KafkaConfig,
    /// Routes, each a `[[route]]`: which events go where, and in which form; see
    /// docs/routing.md. The first route that matches an event applies.
    pub route: Vec<Route>,
    /// Schema registry of the formats `confluent-…`.
    pub schema_registry: SchemaRegistryConfig,
    /// Storage of the position.
    pub checkpoint: CheckpointConfig,
    /// Delivery guarantee.
    pub delivery: DeliveryConfig,
    /// Handling of events that can never be delivered.
    pub dead_letter: DeadLetterConfig,
    /// Records of where each event went.
    pub receipts: ReceiptsConfig,
    /// Removal of delivered rows.
    pub retention: RetentionConfig,
    /// Memory, restarts and shutdown.
    pub pipeline: PipelineConfig,
    /// Several pipelines in one process.
    pub fleet: FleetConfig,
    /// Ports of health and metrics.
    pub http: HttpConfig,
    /// Log lines of the binary.
    pub log: LogConfig,
}

impl Config {
    /// The tables that the relay reads, of which some may be patterns; none if it reads logical
    /// messages.
    pub fn outbox_tables(&self) -> Vec<OutboxTable> {
        match self.postgres.source {
            Some(Source::Tables) if self.outbox.is_empty() => {
                vec![OutboxTable::new(ARCHIVE_TABLE, OutboxPreset::Factlib)]
            }
            Some(Source::Messages) => Vec::new(),
            _ => self.outbox.clone(),
        }
    }

    /// The tables whose old rows are removed, of which some may be patterns; none if
    /// `retention.after` is not set.
    pub fn retention_tables(&self) -> Vec<OutboxTable> {
        if self.retention.after.is_none() {
            return Vec::new();
        }
        if !self.retention.tables.is_empty() {
            return self.retention.tables.iter().map(|name| self.table_named(name)).collect();
        }
        let mut tables = self.outbox_tables();
        if tables.is_empty() {
            tables.push(OutboxTable::new(ARCHIVE_TABLE, OutboxPreset::Factlib));
        }
        tables.retain(|table| table.preset == OutboxPreset::Factlib);
        tables
    }

    /// The `[[outbox]]` of that table, by its name or by a pattern, or else one with the preset
    /// factlib.
    pub fn table_named(&self, name: &str) -> OutboxTable {
        let named = OutboxTable::new(name, OutboxPreset::Factlib);
        let pattern = named.pattern();
        let known = match pattern.exact() {
            Some(name) => OutboxTable::of_name(&self.outbox, &name),
            None => self.outbox.iter().find(|table| table.pattern() == pattern).cloned(),
        };
        known.unwrap_or(named)
    }

    /// Prefix of topics' names: `kafka.topic_prefix`, or else `postgres.message_prefix`.
    pub fn topic_prefix(&self) -> &str {
        self.kafka.topic_prefix.as_deref().unwrap_or(&self.postgres.message_prefix)
    }

    /// Dead-letter topic: `dead_letter.topic`, or else `{topic_prefix}.dead-letter`.
    pub fn dead_letter_topic(&self) -> String {
        let named = self.dead_letter.topic.clone();
        named.unwrap_or_else(|| format!("{}.dead-letter", self.topic_prefix()))
    }

    /// True if events and position are written in Kafka transactions.
    pub fn is_exactly_once(&self) -> bool {
        self.delivery.mode == DeliveryMode::ExactlyOnce
    }

    /// Topic of positions: `delivery.position_topic`, or else `{topic_prefix}.checkpoints`.
    pub fn position_topic(&self) -> String {
        let named = self.delivery.position_topic.clone();
        named.unwrap_or_else(|| format!("{}.checkpoints", self.topic_prefix()))
    }

    /// Topic of receipts: `receipts.topic`, or else `{topic_prefix}.receipts`.
    pub fn receipt_topic(&self) -> String {
        let named = self.receipts.topic.clone();
        named.unwrap_or_else(|| format!("{}.receipts", self.topic_prefix()))
    }

    /// Value of `pipeline.batch` in bytes.
    pub fn batch_bytes(&self) -> usize {
        usize::try_from(self.pipeline.batch.as_u64()).unwrap_or(usize::MAX)
    }

    /// Value of `pipeline.window` in bytes, limited to what a semaphore can count.
    pub fn window_bytes(&self) -> u32 {
        let most = u32::try_from(tokio::sync::Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        u32::try_from(self.pipeline.window.as_u64()).unwrap_or(most).min(most)
    }
}

impl From<&Config> for RoutingSettings {
    fn from(config: &Config) -> Self {
        RoutingSettings {
            routes: config.route.clone(),
            unrouted: config.kafka.unrouted,
            format: config.kafka.format,
            subject: config.schema_registry.subject,
            topic_prefix: config.topic_prefix().to_owned(),
            dead_letter_topic: config.dead_letter_topic(),
            position_topic: config.position_topic(),
            receipt_topic: (config.receipts.store == ReceiptStore::Topic)
                .then(|| config.receipt_topic()),
            max_topics: config.kafka.topics.max,
        }
    }
}
