//! Requests that any broker can answer: tried on an idle connection, then on all known brokers.

use std::{sync::Arc, time::Duration};

use kafka_protocol::protocol::Request;
use tokio::time::timeout;

use crate::{
    connection_pool::Lease,
    error::{Error, Result},
    race::first_ok,
    settings::Settings,
};

/// Head start of a broker before the next one is tried too.
const HEAD_START: Duration = Duration::from_millis(250);

/// Limit for a response on an idle connection. If that broker is gone, the others may already
/// know its successor.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Brokers that can answer a request.
pub(crate) struct BrokerPool {
    pub settings: Arc<Settings>,
    /// The broker that answered last, to ask first.
    pub preferred: Option<(String, u16)>,
    /// Brokers found by metadata, besides those of the settings.
    pub discovered: Vec<(String, u16)>,
    /// Number of brokers, in the order of the list, that are tried after the others because their
    /// answers were of no use.
    pub skipped: usize,
}

impl BrokerPool {
    /// Sends the request on an idle connection to the broker to ask first; if this fails, to the
    /// first broker that accepts a connection. Returns the connection with the response.
    pub async fn request<R: Request>(
        self,
        request: &R,
        max_version: i16,
    ) -> Result<(Lease, R::Response)> {
        let first = self.preferred.clone().or_else(|| self.in_order().into_iter().next());
        let idle = first.and_then(|(host, port)| Lease::take_idle(&self.settings, &host, port));
        if let Some(idle) = idle {
            let response = timeout(RESPONSE_TIMEOUT, idle.call(request, max_version)).await;
            if let Ok(Ok(response)) = response {
                return Ok((idle, response));
            }
            // The others may be dead, too.
            idle.close_idle();
        }
        let connection = self.connect().await?;
        let response = connection.call(request, max_version).await?;
        Ok((connection, response))
    }

    /// Connects to the first broker that accepts a connection.
    async fn connect(&self) -> Result<Lease> {
        // The first error is the most useful one: it comes from a broker that the settings name.
        let connected = first_ok(self.in_order(), HEAD_START, |(host, port)| {
            let settings = Arc::clone(&self.settings);
            async move { Lease::take(&settings, &host, port).await }
        });
        connected.await.map_err(|failed| {
            failed.unwrap_or_else(|| Error::Protocol {
                address: self.settings.bootstrap.join(",").into(),
                what: "no valid broker address; write each as host:port".into(),
            })
        })
    }

    /// Returns the addresses of all brokers in the order in which to try them.
    fn in_order(&self) -> Vec<(String, u16)> {
        let mut all = self.addresses();
        let skipped = self.skipped % all.len().max(1);
        all.rotate_left(skipped);
        all
    }

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
