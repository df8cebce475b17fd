//! Requests that any broker can answer: tried on an open connection, then on all known brokers.

use std::{sync::Arc, time::Duration};

use kafka_protocol::protocol::Request;
use tokio::time::timeout;

use crate::{
    connection::Connection,
    error::{Error, Result},
    race::first_ok,
    settings::Settings,
};

/// Head start of a broker before the next one is tried too.
const HEAD_START: Duration = Duration::from_millis(250);

/// Limit for a response on the open connection. If that broker is gone, the others may already
/// know its successor.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Brokers that can answer a request.
pub(crate) struct BrokerPool {
    pub settings: Arc<Settings>,
    /// A connection to try first.
    pub preferred: Option<Connection>,
    /// Brokers found by metadata, besides those of the settings.
    pub discovered: Vec<(String, u16)>,
    /// Number of brokers, in the order of the list, that are tried after the others because their
    /// answers were of no use.
    pub skipped: usize,
}

impl BrokerPool {
    /// Sends the request on the open connection; if this fails, to the first broker that accepts a
    /// connection.
    pub async fn request<R: Request>(
        self,
        request: &R,
        max_version: i16,
    ) -> Result<(Connection, R::Response)> {
        if let Some(connection) = self.preferred.clone() {
            let response = timeout(RESPONSE_TIMEOUT, connection.call(request, max_version)).await;
            if let Ok(Ok(response)) = response {
                return Ok((connection, response));
            }
        }
        let connection = self.connect().await?;
        let response = connection.call(request, max_version).await?;
        Ok((connection, response))
    }

    /// Connects to the first broker that accepts a connection.
    pub async fn connect(&self) -> Result<Connection> {
        let mut all = self.addresses();
        let skipped = self.skipped % all.len().max(1);
        all.rotate_left(skipped);
        // The first error is the most useful one: it comes from a broker that the settings name.
        let connected = first_ok(all, HEAD_START, |(host, port)| {
            let settings = Arc::clone(&self.settings);
            async move { Connection::open(&settings, &host, port).await }
        });
        connected.await.map_err(|failed| {
            failed.unwrap_or_else(|| Error::Protocol {
                address: self.settings.bootstrap.join(",").into(),
                what: "no valid broker address; write each as host:port".into(),
            })
        })
    }
}

impl BrokerPool {
    /// Returns the addresses of all brokers, each once: those of the settings first.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        let bootstrap = self.settings.bootstrap.iter().filter_map(|address| split(address));
        let mut all: Vec<_> = Vec::new();
        for address in bootstrap.chain(self.discovered.iter().cloned()) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }
}

/// Splits an address into host and port. An IPv6 host is in brackets.
fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}
