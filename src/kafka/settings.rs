//! Settings of a client: brokers, connections, and the topics it creates.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Settings of a client.
#[derive(Clone)]
pub(crate) struct KafkaSettings {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// The `client.id` that brokers see.
    pub client_id: String,
    /// SASL user; with it, SASL is on.
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub sasl_mechanism: String,
    /// Encrypts and verifies connections.
    pub tls: bool,
    /// PEM file of the authorities that sign the brokers' certificates; the system's when not set.
    pub tls_ca: Option<PathBuf>,
    pub compression: Compression,
    /// Interval of statistics; zero for none.
    pub statistics_interval: Duration,
    pub topics: NewTopics,
    /// librdkafka properties, which win over what is set here.
    pub properties: BTreeMap<String, String>,
}

/// Settings of topics that are missing.
#[derive(Clone)]
pub(crate) struct NewTopics {
    /// Creates them.
    pub create: bool,
    /// The broker's default when not set.
    pub partitions: Option<i32>,
    /// The broker's default when not set.
    pub replication_factor: Option<i32>,
    /// Settings such as `retention.ms`.
    pub config: BTreeMap<String, String>,
}

/// Compression of record batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    #[default]
    Lz4,
    Zstd,
}

/// True for properties whose value is a password, a key or a token.
pub(crate) fn is_secret(property: &str) -> bool {
    const PARTS: [&str; 5] = ["password", "passphrase", "secret", "key.pem", "oauthbearer.config"];
    PARTS.iter().any(|part| property.contains(part))
}
