//! Settings of a client: addresses of the brokers, connections and login.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    compression::Compression,
    connector::{Connector, Plaintext},
    sasl::Login,
};

/// Settings of a [`Producer`](crate::Producer).
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// `host:port` of brokers to ask first.
    pub bootstrap: Vec<String>,
    /// The name that brokers have in their logs and quotas.
    pub client_id: String,
    /// How connections are made: [`Plaintext`] unless given.
    pub connector: Arc<dyn Connector>,
    /// How to log in; none for brokers without SASL.
    pub login: Option<Arc<dyn Login>>,
    /// How batches are compressed.
    pub compression: Compression,
    /// Level of gzip and zstd; the library's default when not set.
    pub compression_level: Option<i32>,
    /// Limit for an attempt to connect, TLS and login included.
    pub connect_timeout: Duration,
    /// Limit for an answer; after it, the connection counts as dead. A broker waits half of it for
    /// replicas.
    pub request_timeout: Duration,
    /// The first pause after a failure; each further one is longer, up to `backoff_max`.
    pub backoff: Duration,
    /// The longest pause after failures.
    pub backoff_max: Duration,
    /// How old metadata may be: new partitions are found by then.
    pub metadata_max_age: Duration,
    /// Bytes of records in a batch, before compression. A topic that takes less has batches cut.
    pub batch_bytes: usize,
}

impl Settings {
    /// The usual settings for these brokers, each `host:port`.
    pub fn new(bootstrap: Vec<String>) -> Self {
        Settings {
            bootstrap,
            client_id: "factlib".into(),
            connector: Arc::new(Plaintext),
            login: None,
            compression: Compression::default(),
            compression_level: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(30),
            // Below the limit that brokers have unless they are told otherwise.
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
