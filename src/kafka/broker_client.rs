//! The client for questions to the brokers, whose errors are factlib's.

use std::{future::Future, time::Duration};

use factlib_kafka::Client;
use tokio::time::timeout;

use super::{KafkaSettings, errors::client_error, pipelined::client_settings};
use crate::{Error, ErrorKind, Result};

/// A client that connects with its first request and joins no group.
pub(super) struct BrokerClient {
    client: Client,
    /// The bootstrap brokers, separated by commas.
    brokers: String,
}

impl BrokerClient {
    /// # Errors
    /// [`ErrorKind::Config`] for a setting that the client does not take.
    pub fn new(settings: &KafkaSettings) -> Result<Self> {
        let client = Client::new(client_settings(settings)?);
        Ok(BrokerClient { client, brokers: settings.brokers.join(",") })
    }

    /// The bootstrap brokers, separated by commas.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Makes an error from the client's; `what` says what a broker refused.
    pub fn error(&self, what: impl Into<String>, error: factlib_kafka::Error) -> Error {
        client_error(&self.brokers, what, error)
    }

    /// Waits for an answer, no longer than `limit`.
    pub async fn within<T>(
        &self,
        limit: Duration,
        what: impl Into<String>,
        answer: impl Future<Output = factlib_kafka::Result<T>>,
    ) -> Result<T> {
        match timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error| self.error(what, error)),
            Err(_) => {
                let what = format!("cannot reach Kafka at {}", self.brokers);
                let error = Error::new(ErrorKind::KafkaUnavailable, what);
                Err(error.caused_by(format!("no answer in {limit:?}")))
            }
        }
    }
}
