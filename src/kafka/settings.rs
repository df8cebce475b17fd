//! Settings of a client: brokers, connections, and the topics it creates.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use factlib_kafka::{AddedPartitions, tls::Verification};
use serde::{Deserialize, Serialize};

use super::{Secret, pipelined::SharedConnections};

/// Settings of a client.
#[derive(Clone)]
pub(crate) struct KafkaSettings {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// The `client.id` that brokers see.
    pub client_id: String,
    /// SASL login; none for brokers without SASL.
    pub login: Option<LoginSettings>,
    /// Encryption; none for plaintext connections.
    pub tls: Option<TlsSettings>,
    /// Connections to share with other clients; none for connections of its own.
    pub connections: Option<SharedConnections>,
    pub compression: Compression,
    /// Level of gzip or zstd; the library's default when not set.
    pub compression_level: Option<i32>,
    /// Most bytes of records in a batch, before compression.
    pub batch_bytes: usize,
    /// Limit of one attempt to connect.
    pub connect_timeout: Duration,
    /// Limit of one response.
    pub request_timeout: Duration,
    /// First pause after a failure; doubles up to `retry_backoff_max`.
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    pub metadata_max_age: Duration,
    pub added_partitions: AddedPartitions,
    /// Interval of statistics; zero for none.
    pub statistics_interval: Duration,
    pub topics: NewTopics,
}

/// A SASL login.
#[derive(Clone, PartialEq)]
pub(crate) enum LoginSettings {
    /// With user and password.
    Password { mechanism: PasswordMechanism, username: String, password: Secret },
    /// With OAUTHBEARER, and a token of an OpenID provider.
    Token(TokenEndpoint),
}

/// A SASL mechanism that takes a user and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// An OpenID provider's token endpoint, and the client's credentials there.
#[derive(Clone, PartialEq)]
#[cfg_attr(not(feature = "oauth"), allow(dead_code, reason = "such a login is refused before"))]
pub(crate) struct TokenEndpoint {
    /// `http(s)://…`.
    pub url: String,
    pub client_id: String,
    pub client_secret: Secret,
    pub scope: Option<String>,
    /// PEM file of further certificate authorities.
    pub authorities: Option<PathBuf>,
    /// SASL extensions, by name.
    pub extensions: Vec<(String, String)>,
    /// Limit of one answer.
    pub timeout: Duration,
}

/// Encryption, and the client's own certificate.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct TlsSettings {
    /// PEM file of the authorities that sign the brokers' certificates; the system's when not set.
    pub authorities: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
    pub key_password: Option<Secret>,
    /// Name in the brokers' certificates, if it is not the host.
    pub server_name: Option<String>,
    pub verification: Verification,
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

#[cfg(not(feature = "oauth"))]
impl LoginSettings {
    /// The reason why OAUTHBEARER is refused in this build.
    pub const NO_OAUTH: &str = "this factlib was built without the feature oauth, which it needs";
}

impl PasswordMechanism {
    /// All mechanisms.
    pub const ALL: [PasswordMechanism; 3] =
        [PasswordMechanism::Plain, PasswordMechanism::ScramSha256, PasswordMechanism::ScramSha512];

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            PasswordMechanism::Plain => "PLAIN",
            PasswordMechanism::ScramSha256 => "SCRAM-SHA-256",
            PasswordMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// True for properties whose value is a password, a key or a token.
pub(crate) fn is_secret(property: &str) -> bool {
    const PARTS: [&str; 6] =
        ["password", "passphrase", "secret", "key.pem", "oauthbearer.config", "jaas.config"];
    PARTS.iter().any(|part| property.contains(part))
}
