//! Settings of a client: addresses of the brokers, connections and login.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    compression::Compression,
    connection_pool::ConnectionPool,
    connector::{Connector, Plaintext},
    sasl::Login,
};

/// Settings of a [`Producer`](crate::Producer).
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Brokers to connect to first, each `host:port`.
    pub bootstrap: Vec<String>,
    /// Name of this client in the brokers' logs and quotas.
    pub client_id: String,
    /// Opens the connections; [`Plaintext`] by default.
    pub connector: Arc<dyn Connector>,
    /// SASL login; none for brokers without SASL.
    pub login: Option<Arc<dyn Login>>,
    /// Open connections. Clients with clones of these settings take turns to use them.
    pub connections: Arc<ConnectionPool>,
    /// Codec for batches of 512 bytes or more.
    pub compression: Compression,
    /// Compression level for gzip and zstd; none for the library's default.
    pub compression_level: Option<i32>,
    /// Limit for an attempt to connect, including TLS and login.
    pub connect_timeout: Duration,
    /// Limit for a response; when it passes, the client closes the connection. A broker waits half
    /// of this time for replicas.
    pub request_timeout: Duration,
    /// First pause after a failure. Pauses double with each further failure, up to `backoff_max`.
    pub backoff: Duration,
    /// Longest pause after failures.
    pub backoff_max: Duration,
    /// Maximum age of metadata, and so the time within which new partitions are found.
    pub metadata_max_age: Duration,
    /// Use of partitions that are added to an open topic.
    pub added_partitions: AddedPartitions,
    /// Maximum bytes of records in a batch, before compression. For a topic with a lower limit,
    /// batches are cut.
    pub batch_bytes: usize,
}

/// Use of partitions that are added to an open topic. With them, most keys map to other partitions.
///
/// A topic that is opened uses all of its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddedPartitions {
    /// The next record may go to a new partition.
    #[default]
    AtOnce,
    /// Records go to new partitions once every earlier record of the topic has its result, and, in
    /// transactions, once the transaction of these records is committed. Until then, later records
    /// wait; see [`Observer::drained`](crate::Observer::drained).
    Drained,
    /// No record goes to a new partition, and keys map to the former ones.
    Ignored,
}

impl Settings {
    /// Returns the default settings for these brokers, each `host:port`.
    pub fn new(bootstrap: Vec<String>) -> Self {
        Settings {
            bootstrap,
            client_id: "factlib".into(),
            connector: Arc::new(Plaintext),
            login: None,
            connections: Arc::default(),
            compression: Compression::default(),
            compression_level: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(30),
            added_partitions: AddedPartitions::default(),
            // Below the brokers' default limit.
            batch_bytes: 1_000_000,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A login holds secrets.
        f.debug_struct("Settings")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
