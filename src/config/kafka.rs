use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The section `[kafka]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// `{topic_prefix}.{aggregate_type}` is the topic; the message prefix when not set.
    pub topic_prefix: Option<String>,
    /// The `client.id` that brokers see.
    pub client_id: String,
    /// SASL user; with it, SASL is on.
    pub username: Option<String>,
    /// SASL password.
    #[serde(serialize_with = "super::redacted_option")]
    pub password: Option<SecretString>,
    /// SASL mechanism, when a user is given.
    pub sasl_mechanism: String,
    /// Encrypt and verify the connection to the brokers.
    pub tls: bool,
    /// Compression of record batches.
    pub compression: Compression,
    /// Topics that are missing are created.
    pub topics: TopicCreation,
    /// Any librdkafka producer property, by its own name; wins over what factlib sets,
    /// but for those that its promises rest on.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig {
            brokers: vec!["localhost:9092".into()],
            topic_prefix: None,
            client_id: "factlib".into(),
            username: None,
            password: None,
            sasl_mechanism: "SCRAM-SHA-512".into(),
            tls: false,
            compression: Compression::Lz4,
            topics: TopicCreation::default(),
            properties: BTreeMap::new(),
        }
    }
}

/// Compression of record batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

/// The section `[kafka.topics]`: how missing topics are created.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicCreation {
    /// Create a topic on its first event.
    pub create: bool,
    /// Partitions of a topic that factlib creates; the broker's default when not set.
    pub partitions: Option<i32>,
    /// Replicas of a topic that factlib creates; the broker's default when not set.
    pub replication_factor: Option<i32>,
    /// Topic settings (`retention.ms` …) of a topic that factlib creates.
    pub config: BTreeMap<String, String>,
}

impl Default for TopicCreation {
    fn default() -> Self {
        TopicCreation {
            create: true,
            partitions: None,
            replication_factor: None,
            config: BTreeMap::new(),
        }
    }
}
