//! The section `[kafka]`.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use factlib_kafka::{AddedPartitions, tls::Verification};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    Format, Unrouted,
    properties::{Shown, with_properties},
};
use crate::kafka::{
    Compression, KafkaSettings, LoginSettings, NewTopics, PasswordMechanism, Secret, TlsSettings,
    TokenEndpoint, pipelined::SharedConnections,
};

/// The SASL mechanism that logs in with a token.
pub(crate) const OAUTHBEARER: &str = "OAUTHBEARER";

/// The section `[kafka]`: brokers, client, topics and format.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// Kafka client: `pipelined`, or `kafka` for old brokers; see docs/kafka-clients.md.
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
    /// SASL mechanism, if there is a user; with OAUTHBEARER, the login is by a token of
    /// `oauth_token_url`.
    pub sasl_mechanism: String,
    /// SASL user; setting it turns SASL on.
    pub username: Option<String>,
    /// SASL password.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub password: Option<SecretString>,
    /// File with the password; it is read again at each connection.
    #[serde(skip)]
    pub password_file: Option<PathBuf>,
    /// Token endpoint of an OpenID provider, `http(s)://…`, for tokens by client credentials.
    pub oauth_token_url: Option<String>,
    /// Id of this client at the OpenID provider.
    pub oauth_client_id: Option<String>,
    /// Secret of this client at the OpenID provider.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub oauth_client_secret: Option<SecretString>,
    /// File with the client's secret; it is read again for each token.
    #[serde(skip)]
    pub oauth_client_secret_file: Option<PathBuf>,
    /// Scopes to ask the OpenID provider for, separated by blanks.
    pub oauth_scope: Option<String>,
    /// PEM file of the OpenID provider's certificate authority, in addition to the system's.
    pub oauth_tls_ca: Option<PathBuf>,
    /// SASL extensions that the brokers require beside the token, each `name=value`.
    pub oauth_extensions: Vec<String>,
    /// Encrypt the connections to the brokers and verify their certificates.
    pub tls: bool,
    /// PEM file of the certificate authorities of the brokers; default: the system's.
    pub tls_ca: Option<PathBuf>,
    /// PEM file of the relay's own certificate, which brokers may require, with any
    /// intermediate certificates after it.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the private key of `tls_certificate`.
    pub tls_key: Option<PathBuf>,
    /// Passphrase of `tls_key`.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub tls_key_password: Option<SecretString>,
    /// File with the passphrase; it is read again at each connection.
    #[serde(skip)]
    pub tls_key_password_file: Option<PathBuf>,
    /// Name in the brokers' certificates; default: the host of each.
    pub tls_server_name: Option<String>,
    /// Extent to which the brokers' certificates are verified: authority and name; only the
    /// authority; or nothing, so that an attacker on the network can read and change
    /// everything.
    pub tls_verification: TlsVerification,
    /// Compression of record batches. Those of less than 512 bytes are sent as they are.
    pub compression: Compression,
    /// Level of the compression gzip (1 to 9) or zstd (1 to 22); default: the library's.
    pub compression_level: Option<i32>,
    /// Maximum size of the records in a batch, before compression. Batches for a topic with
    /// a lower limit are smaller.
    #[serde(serialize_with = "super::size::serialize")]
    pub batch_bytes: ByteSize,
    /// Time limit of one attempt to connect, with TLS and login.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time limit of one answer of a broker, after which its connection counts as lost.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// First pause after a connection or a request failed; doubles with each further
    /// failure.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
    /// Longest pause after failures.
    #[serde(with = "humantime_serde")]
    pub retry_backoff_max: Duration,
    /// Maximum age of what the client knows of brokers and topics, and so the time after
    /// which new partitions are used.
    #[serde(with = "humantime_serde")]
    pub metadata_max_age: Duration,
    /// Effect of partitions that are added to a topic, which move most aggregates to another
    /// partition: what is in flight to the topic ends before the new number is used, and the
    /// offsets at that point are logged; the new number is used at once; or the relay stops.
    /// The client `kafka` always uses the new number at once.
    pub on_partitions_added: PartitionsAdded,
    /// Interval of the client's statistics on its connections to brokers, for the status and
    /// the metrics; `0s` turns them off.
    #[serde(with = "humantime_serde")]
    pub statistics_interval: Duration,
    /// Creation of missing topics.
    pub topics: TopicCreation,
    /// Properties by librdkafka's names, such as `ssl.ca.location`; each overrides the
    /// setting that it stands for. docs/kafka-clients.md lists them.
    #[serde(serialize_with = "super::properties::serialize")]
    pub properties: BTreeMap<String, String>,
    /// Files of secrets among the properties, by name; each is read again when it is needed.
    #[serde(skip)]
    pub property_files: BTreeMap<String, PathBuf>,
    /// Connections that the pipelines of a fleet share.
    #[serde(skip)]
    pub(crate) connections: Option<SharedConnections>,
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
            sasl_mechanism: "SCRAM-SHA-512".into(),
            username: None,
            password: None,
            password_file: None,
            oauth_token_url: None,
            oauth_client_id: None,
            oauth_client_secret: None,
            oauth_client_secret_file: None,
            oauth_scope: None,
            oauth_tls_ca: None,
            oauth_extensions: Vec::new(),
            tls: false,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            tls_key_password: None,
            tls_key_password_file: None,
            tls_server_name: None,
            tls_verification: TlsVerification::Full,
            compression: Compression::Lz4,
            compression_level: None,
            // Just below the brokers' default limit.
            batch_bytes: ByteSize(1_000_000),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            // An outage is over when the broker is back, not ten seconds later.
            retry_backoff: Duration::from_millis(50),
            retry_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(30),
            on_partitions_added: PartitionsAdded::default(),
            // About once per scrape; costs next to nothing.
            statistics_interval: Duration::from_secs(10),
            topics: TopicCreation::default(),
            properties: BTreeMap::new(),
            property_files: BTreeMap::new(),
            connections: None,
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
            sasl_mechanism,
            username,
            password,
            password_file,
            oauth_token_url,
            oauth_client_id,
            oauth_client_secret,
            oauth_client_secret_file,
            oauth_scope,
            oauth_tls_ca,
            oauth_extensions,
            tls,
            tls_ca,
            tls_certificate,
            tls_key,
            tls_key_password,
            tls_key_password_file,
            tls_server_name,
            tls_verification,
            compression,
            compression_level,
            batch_bytes,
            connect_timeout,
            request_timeout,
            retry_backoff,
            retry_backoff_max,
            metadata_max_age,
            on_partitions_added,
            statistics_interval,
            topics,
            properties,
            property_files,
            connections: _,
        } = self;
        f.debug_struct("KafkaConfig")
            .field("brokers", brokers)
            .field("client", client)
            .field("topic_prefix", topic_prefix)
            .field("format", format)
            .field("unrouted", unrouted)
            .field("client_id", client_id)
            .field("sasl_mechanism", sasl_mechanism)
            .field("username", username)
            .field("password", password)
            .field("password_file", password_file)
            .field("oauth_token_url", oauth_token_url)
            .field("oauth_client_id", oauth_client_id)
            .field("oauth_client_secret", oauth_client_secret)
            .field("oauth_client_secret_file", oauth_client_secret_file)
            .field("oauth_scope", oauth_scope)
            .field("oauth_tls_ca", oauth_tls_ca)
            .field("oauth_extensions", oauth_extensions)
            .field("tls", tls)
            .field("tls_ca", tls_ca)
            .field("tls_certificate", tls_certificate)
            .field("tls_key", tls_key)
            .field("tls_key_password", tls_key_password)
            .field("tls_key_password_file", tls_key_password_file)
            .field("tls_server_name", tls_server_name)
            .field("tls_verification", tls_verification)
            .field("compression", compression)
            .field("compression_level", compression_level)
            .field("batch_bytes", batch_bytes)
            .field("connect_timeout", connect_timeout)
            .field("request_timeout", request_timeout)
            .field("retry_backoff", retry_backoff)
            .field("retry_backoff_max", retry_backoff_max)
            .field("metadata_max_age", metadata_max_age)
            .field("on_partitions_added", on_partitions_added)
            .field("statistics_interval", statistics_interval)
            .field("topics", topics)
            .field("properties", &Shown(properties))
            .field("property_files", property_files)
            .finish()
    }
}

/// Client that connects to the brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KafkaClient {
    /// `factlib-kafka`: many partitions a request, several requests at a time.
    #[default]
    Pipelined,
    /// The crate `kafka`, of the feature `client-kafka`: brokers before 4.0, no headers, plain
    /// connections.
    Kafka,
}

/// Effect of partitions that are added to a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PartitionsAdded {
    /// Ends what is in flight to the topic, logs the next offset of each former partition, and then
    /// uses the new number.
    #[default]
    Drain,
    /// Logs a warning, and uses the new number at once.
    Warn,
    /// Stops the relay.
    Stop,
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

/// Extent to which the brokers' certificates are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TlsVerification {
    /// Authority, validity period and name.
    #[default]
    Full,
    /// Authority and validity period, so that any certificate of the authority passes.
    Authority,
    /// Nothing.
    None,
}

impl KafkaConfig {
    /// The settings that a client takes; `properties` override the others.
    pub(crate) fn settings(&self) -> KafkaSettings {
        let config = with_properties(self);
        let TopicCreation { create, partitions, replication_factor, config: settings, .. } =
            config.topics.clone();
        KafkaSettings {
            brokers: config.brokers.clone(),
            client_id: config.client_id.clone(),
            login: config.login(),
            tls: config.tls.then(|| config.tls_settings()),
            connections: config.connections.clone(),
            compression: config.compression,
            compression_level: config.compression_level,
            batch_bytes: usize::try_from(config.batch_bytes.as_u64()).unwrap_or(usize::MAX),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            retry_backoff: config.retry_backoff,
            retry_backoff_max: config.retry_backoff_max,
            metadata_max_age: config.metadata_max_age,
            added_partitions: match config.on_partitions_added {
                PartitionsAdded::Drain => AddedPartitions::Drained,
                PartitionsAdded::Warn => AddedPartitions::AtOnce,
                PartitionsAdded::Stop => AddedPartitions::Ignored,
            },
            statistics_interval: config.statistics_interval,
            topics: NewTopics { create, partitions, replication_factor, config: settings },
        }
    }

    /// True if the login is by a token.
    pub(crate) fn has_token_login(&self) -> bool {
        self.sasl_mechanism == OAUTHBEARER
    }

    fn login(&self) -> Option<LoginSettings> {
        if self.has_token_login() {
            let secret = self.oauth_client_secret.clone()?;
            return Some(LoginSettings::Token(TokenEndpoint {
                url: self.oauth_token_url.clone()?,
                client_id: self.oauth_client_id.clone()?,
                client_secret: Secret::new(secret, self.oauth_client_secret_file.clone()),
                scope: self.oauth_scope.clone(),
                authorities: self.oauth_tls_ca.clone(),
                extensions: self.oauth_extensions.iter().filter_map(|text| pair(text)).collect(),
                timeout: self.connect_timeout,
            }));
        }
        let mut known = PasswordMechanism::ALL.into_iter();
        Some(LoginSettings::Password {
            mechanism: known.find(|known| known.name() == self.sasl_mechanism)?,
            username: self.username.clone()?,
            password: Secret::new(self.password.clone()?, self.password_file.clone()),
        })
    }

    fn tls_settings(&self) -> TlsSettings {
        let password = self.tls_key_password.clone();
        TlsSettings {
            authorities: self.tls_ca.clone(),
            certificate: self.tls_certificate.clone(),
            key: self.tls_key.clone(),
            key_password: password
                .map(|password| Secret::new(password, self.tls_key_password_file.clone())),
            server_name: self.tls_server_name.clone(),
            verification: match self.tls_verification {
                TlsVerification::Full => Verification::Full,
                TlsVerification::Authority => Verification::AuthorityOnly,
                TlsVerification::None => Verification::Off,
            },
        }
    }
}

/// Name and value of `name=value`.
pub(super) fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}
