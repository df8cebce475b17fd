//! The section `[kafka]`.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Format, Unrouted, properties::Shown};
use crate::kafka::{Compression, KafkaSettings, NewTopics};

/// The section `[kafka]`: brokers, client, topics and format.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// Kafka client: `rdkafka`; `pipelined`, which is fast over a network and can't do
    /// exactly-once yet; or `kafka`, for old brokers; see docs/kafka-clients.md.
    pub client: KafkaClient,
    /// First part of topic names, `{topic_prefix}.{aggregate_type}`; default: the message
    /// prefix.
    pub topic_prefix: Option<String>,
    /// Format of records, unless their route sets one; see docs/routing.md. Does not apply
    /// to tables with the preset `debezium`.
    pub format: Format,
    /// Effect on an event that no `[[route]]` matches: it goes to
    /// `{topic_prefix}.{aggregate_type}`; it is parked; it is not sent and counts as done;
    /// or the relay stops.
    pub unrouted: Unrouted,
    /// The `client.id` that brokers see.
    pub client_id: String,
    /// SASL user; setting it turns SASL on.
    pub username: Option<String>,
    /// SASL password.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub password: Option<SecretString>,
    /// SASL mechanism, if a user is set.
    pub sasl_mechanism: String,
    /// Encrypt the connections to the brokers and verify their certificates.
    pub tls: bool,
    /// PEM file of the certificate authorities of the brokers; default: the system's.
    pub tls_ca: Option<PathBuf>,
    /// Connections to each broker, over which topics are spread. Each carries one request
    /// at a time, so more connections help with long round trips and many topics. Not used
    /// with exactly-once or the client `kafka`.
    pub connections: usize,
    /// Compression of record batches.
    pub compression: Compression,
    /// Interval of the client's statistics on its queue and brokers, for the status and the
    /// metrics; `0s` turns them off.
    #[serde(with = "humantime_serde")]
    pub statistics_interval: Duration,
    /// Creation of missing topics.
    pub topics: TopicCreation,
    /// Any librdkafka producer property, by its own name; overrides factlib's
    /// settings, except those that its promises depend on.
    #[serde(serialize_with = "super::properties::serialize")]
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig {
            brokers: vec!["localhost:9092".into()],
            client: KafkaClient::default(),
            topic_prefix: None,
            format: Format::default(),
            unrouted: Unrouted::default(),
            client_id: "factlib".into(),
            username: None,
            password: None,
            sasl_mechanism: "SCRAM-SHA-512".into(),
            tls: false,
            tls_ca: None,
            connections: 4,
            compression: Compression::Lz4,
            // About once per scrape; costs next to nothing.
            statistics_interval: Duration::from_secs(10),
            topics: TopicCreation::default(),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Like the derived one, but with secrets in the properties redacted. New fields have to be
        // added here.
        let KafkaConfig {
            brokers,
            client,
            topic_prefix,
            format,
            unrouted,
            client_id,
            username,
            password,
            sasl_mechanism,
            tls,
            tls_ca,
            connections,
            compression,
            statistics_interval,
            topics,
            properties,
        } = self;
        f.debug_struct("KafkaConfig")
            .field("brokers", brokers)
            .field("client", client)
            .field("topic_prefix", topic_prefix)
            .field("format", format)
            .field("unrouted", unrouted)
            .field("client_id", client_id)
            .field("username", username)
            .field("password", password)
            .field("sasl_mechanism", sasl_mechanism)
            .field("tls", tls)
            .field("tls_ca", tls_ca)
            .field("connections", connections)
            .field("compression", compression)
            .field("statistics_interval", statistics_interval)
            .field("topics", topics)
            .field("properties", &Shown(properties))
            .finish()
    }
}

/// Client that connects to the brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KafkaClient {
    /// librdkafka: idempotent, with headers, TLS and SASL.
    #[default]
    Rdkafka,
    /// `factlib-kafka`: many partitions a request and several requests at a time, for brokers
    /// behind a network. Not with exactly-once yet.
    Pipelined,
    /// The crate `kafka`, of the feature `client-kafka`: brokers before 4.0, no headers, plain
    /// connections.
    Kafka,
}

/// The section `[kafka.topics]`: creation of missing topics.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopicCreation {
    /// Create a topic on its first event.
    pub create: bool,
    /// Partitions of a topic that factlib creates; default: the broker's.
    pub partitions: Option<i32>,
    /// Replicas of a topic that factlib creates; default: the broker's.
    pub replication_factor: Option<i32>,
    /// Maximum number of topics for events; an event for one more topic is refused.
    pub max: usize,
    /// Topic settings (`retention.ms` …) of topics that factlib creates.
    pub config: BTreeMap<String, String>,
}

impl Default for TopicCreation {
    fn default() -> Self {
        TopicCreation {
            create: true,
            partitions: None,
            replication_factor: None,
            max: 1_000,
            config: BTreeMap::new(),
        }
    }
}

impl From<&KafkaConfig> for KafkaSettings {
    fn from(config: &KafkaConfig) -> Self {
        let TopicCreation { create, partitions, replication_factor, config: settings, .. } =
            config.topics.clone();
        KafkaSettings {
            brokers: config.brokers.clone(),
            client_id: config.client_id.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            sasl_mechanism: config.sasl_mechanism.clone(),
            tls: config.tls,
            tls_ca: config.tls_ca.clone(),
            compression: config.compression,
            statistics_interval: config.statistics_interval,
            topics: NewTopics { create, partitions, replication_factor, config: settings },
            properties: config.properties.clone(),
        }
    }
}

impl KafkaConfig {
    /// The settings that a client takes.
    pub(crate) fn settings(&self) -> KafkaSettings {
        self.into()
    }
}
