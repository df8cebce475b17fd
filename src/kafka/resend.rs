//! Sends records again outside of a pipeline, for replays and redriven dead letters.
//!
//! Missing topics are created, as in the relay, and each topic is prepared once.

use std::{collections::HashSet, time::Duration};

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};
use slog::Logger;

pub(crate) use super::queue_budget::RECORD_OVERHEAD;
use super::{
    KafkaSettings,
    admin::TopicAdmin,
    client::producer_config,
    errors::kafka_error,
    producer::{DEFAULT_BATCH_SIZE, KafkaProducer},
    unobserved,
};
use crate::{Error, Result};

/// Sends records by librdkafka's futures.
pub(crate) struct ResendClient {
    topics: TopicAdmin,
    settings: ClientConfig,
    producer: FutureProducer,
    /// The client for questions to the brokers, which also hears of trouble with them.
    asking: KafkaProducer,
    ready: HashSet<String>,
}

impl ResendClient {
    /// A client with these settings, whose queue has room for `window_bytes`; it connects later. A
    /// record waits for brokers that are away no longer than `delivery_timeout`, without one for
    /// ever.
    ///
    /// # Errors
    /// Settings that librdkafka does not take.
    pub fn new(
        kafka: KafkaSettings,
        window_bytes: usize,
        delivery_timeout: Option<Duration>,
        log: &Logger,
    ) -> Result<Self> {
        let mut settings = producer_config(&kafka, window_bytes);
        if let Some(timeout) = delivery_timeout {
            settings.set("message.timeout.ms", timeout.as_millis().to_string());
        }
        Ok(ResendClient {
            producer: create(&settings)?,
            asking: KafkaProducer::new(&kafka, window_bytes, unobserved(), log.clone())?,
            topics: TopicAdmin::new(&kafka)?,
            settings,
            ready: HashSet::new(),
        })
    }

    /// True before the first topic is ready.
    pub fn is_unused(&self) -> bool {
        self.ready.is_empty()
    }

    /// True for a topic that was prepared.
    pub fn is_ready(&self, topic: &str) -> bool {
        self.ready.contains(topic)
    }

    /// Creates the topic if it is missing. Gives the size that batches have to have for it, if
    /// they are larger now: see [`limit_batches`](Self::limit_batches).
    ///
    /// # Errors
    /// A topic that can't be sent to.
    pub async fn prepare(&self, topic: &str) -> Result<Option<usize>> {
        let limit = self.topics.prepare(topic).await?.batch_bytes;
        let set = self.settings.get("batch.size").and_then(|bytes| bytes.parse().ok());
        Ok(limit.filter(|bytes| *bytes < set.unwrap_or(DEFAULT_BATCH_SIZE)))
    }

    /// Notes that a topic needs no preparation any more.
    pub fn set_ready(&mut self, topic: &str) {
        self.ready.insert(topic.to_owned());
    }

    /// Makes batches smaller: one that is too large for its topic is refused with all good
    /// records in it. Nothing may be in flight, since the client is a new one.
    ///
    /// # Errors
    /// The new client can't be created.
    pub fn limit_batches(&mut self, bytes: usize) -> Result<()> {
        self.settings.set("batch.size", bytes.to_string());
        self.producer = create(&self.settings)?;
        Ok(())
    }

    /// Queues a record; the future is its answer.
    ///
    /// # Errors
    /// librdkafka's own, such as a full queue.
    pub fn queue(
        &self,
        record: FutureRecord<'_, [u8], [u8]>,
    ) -> Result<DeliveryFuture, KafkaError> {
        self.producer.send_result(record).map_err(|(error, _)| error)
    }

    /// Sends one record and waits for its answer, with a new client where the last one failed.
    ///
    /// # Errors
    /// The client can't be created; [`SendError::Record`] where Kafka did not take the record.
    pub async fn send(&mut self, record: FutureRecord<'_, [u8], [u8]>) -> Result<(), SendError> {
        if self.producer.client().fatal_error().is_some() {
            self.producer = create(&self.settings).map_err(SendError::Client)?;
        }
        match self.producer.send(record, Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(SendError::Record(error)),
        }
    }

    /// Names what the brokers complained of last as the cause of `what`; none if of nothing.
    pub fn trouble(&self, what: String) -> Option<Error> {
        self.asking.client().context().trouble().map(|trouble| trouble.into_error(what))
    }
}

/// Failure to send one record.
pub(crate) enum SendError {
    /// There is no client.
    Client(Error),
    /// The answer for the record.
    Record(KafkaError),
}

fn create(settings: &ClientConfig) -> Result<FutureProducer> {
    settings.create().map_err(|error| kafka_error("cannot create the Kafka client", error))
}
