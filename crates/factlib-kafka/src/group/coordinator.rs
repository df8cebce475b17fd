//! Finds the group's coordinator and connects to it.
//!
//! A member has two connections: a broker handles the requests of a connection one after the other,
//! and a heartbeat must not wait behind a JoinGroup that waits for other members.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kafka_protocol::messages::MetadataRequest;

use super::GroupSettings;
use crate::{
    broker_pool::BrokerPool, connection::Connection, coordinator_key::CoordinatorKey,
    error::Result, settings::Settings,
};

const METADATA_VERSION: i16 = 12;

/// Attempts to reach the coordinator within a session.
const ATTEMPTS_PER_SESSION: u32 = 3;

/// Time for the answer to arrive after a round (as in Apache Kafka's consumer).
const ROUND_SLACK: Duration = Duration::from_secs(5);

/// The coordinator of a group.
pub(super) struct Coordinator {
    group: String,
    /// For requests that are answered at once.
    prompt: Arc<Settings>,
    /// For requests that are answered after a round.
    patient: Arc<Settings>,
    known: Mutex<Known>,
    /// Held during a search, so that only one search runs at a time.
    search: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    address: Option<(String, u16)>,
    /// Connection for heartbeats.
    connection: Option<Connection>,
    /// Brokers found by metadata.
    brokers: Vec<(String, u16)>,
    /// Number of failures; each makes another broker be asked first.
    failures: usize,
}

impl Coordinator {
    pub fn new(settings: &Settings, group: &GroupSettings) -> Self {
        let attempt = group.session_timeout / ATTEMPTS_PER_SESSION;
        let prompt = Settings {
            connect_timeout: settings.connect_timeout.min(attempt),
            request_timeout: settings.request_timeout.min(attempt),
            ..settings.clone()
        };
        let round = group.rebalance_timeout + ROUND_SLACK;
        let patient =
            Settings { request_timeout: settings.request_timeout.max(round), ..prompt.clone() };
        Coordinator {
            group: group.group.clone(),
            prompt: Arc::new(prompt),
            patient: Arc::new(patient),
            known: Mutex::default(),
            search: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the connection for requests that are answered at once; connects if needed.
    pub async fn connection(&self) -> Result<Connection> {
        let open = self.with(|known| known.connection.clone());
        if let Some(open) = open.filter(|open| !open.is_closed()) {
            // The caller sends one request at a time, so none is in flight.
            return match open.is_login_due() {
                true => {
                    let open = open.log_in(&self.prompt).await?;
                    self.with(|known| known.connection = Some(open.clone()));
                    Ok(open)
                }
                false => Ok(open),
            };
        }
        let (host, port) = self.address().await?;
        let connection = Connection::open(&self.prompt, &host, port).await?;
        self.with(|known| known.connection = Some(connection.clone()));
        Ok(connection)
    }

    /// Returns a connection for the requests of a round: `open`, if it can still be used.
    pub async fn round_connection(&self, open: Option<Connection>) -> Result<Connection> {
        if let Some(open) = open.filter(|open| !open.is_closed()) {
            return match open.is_login_due() {
                true => open.log_in(&self.patient).await,
                false => Ok(open),
            };
        }
        let (host, port) = self.address().await?;
        Connection::open(&self.patient, &host, port).await
    }

    /// Forgets the coordinator after a failure; the next request searches for it.
    pub fn forget(&self) {
        self.with(|known| {
            (known.address, known.connection) = (None, None);
            known.failures = known.failures.wrapping_add(1);
        });
    }

    async fn address(&self) -> Result<(String, u16)> {
        let _search = self.search.lock().await;
        if let Some(address) = self.with(|known| known.address.clone()) {
            return Ok(address);
        }
        let brokers = self.with(|known| BrokerPool {
            settings: Arc::clone(&self.prompt),
            preferred: None,
            discovered: known.brokers.clone(),
            skipped: known.failures,
        });
        let key = CoordinatorKey::Group(&self.group);
        let (broker, answer) = brokers.request(&key.request(), CoordinatorKey::VERSION).await?;
        let address = key.address(&answer)?;
        self.with(|known| known.address = Some(address.clone()));
        self.discover_brokers(&broker).await;
        Ok(address)
    }

    /// Stores the addresses of all brokers: those of the settings may be gone at the next search.
    async fn discover_brokers(&self, broker: &Connection) {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        if let Ok(metadata) = broker.call(&request, METADATA_VERSION).await {
            let brokers = metadata.brokers.iter();
            let brokers = brokers.map(|one| (one.host.to_string(), one.port as u16)).collect();
            self.with(|known| known.brokers = brokers);
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
