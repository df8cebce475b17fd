//! Questions that any broker can answer.

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
const HEAD_START: Duration = Duration::from_secs(1);

/// Time for an answer on a connection that is open: its other end may be gone, and the other
/// brokers may know already who does its work now.
const PATIENCE: Duration = Duration::from_secs(5);

/// The brokers to ask.
pub(crate) struct Anyone {
    pub settings: Arc<Settings>,
    /// A connection to try first.
    pub open: Option<Connection>,
    /// Brokers that are known beside the first ones.
    pub known: Vec<(String, u16)>,
}

impl Anyone {
    /// Asks the broker of the open connection, else the first one that lets us in.
    pub async fn ask<R: Request>(
        self,
        request: &R,
        most: i16,
    ) -> Result<(Connection, R::Response)> {
        if let Some(connection) = self.open.clone() {
            let asked = timeout(PATIENCE, connection.call(request, most)).await;
            if let Ok(Ok(answer)) = asked {
                return Ok((connection, answer));
            }
        }
        let connection = self.connect().await?;
        let answer = connection.call(request, most).await?;
        Ok((connection, answer))
    }

    /// Connects to the first broker that lets us in.
    pub async fn connect(&self) -> Result<Connection> {
        let mut all = Vec::new();
        for address in &self.settings.bootstrap {
            all.extend(split(address));
        }
        all.extend_from_slice(&self.known);
        // Of the errors the first says most: it is of a broker that the settings name.
        let connected = first_ok(all, HEAD_START, |(host, port)| {
            let settings = Arc::clone(&self.settings);
            async move { Connection::open(&settings, &host, port).await }
        });
        connected.await.map_err(|failed| {
            failed.unwrap_or_else(|| Error::Protocol {
                address: self.settings.bootstrap.join(",").into(),
                what: "no broker is known; each is host:port".into(),
            })
        })
    }
}

/// Host and port of an address; a host that is an IPv6 address is in brackets.
fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}
