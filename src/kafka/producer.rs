//! The one Kafka client under all topic actors, and the bookkeeping of what it has in flight.
//!
//! librdkafka keeps its own queue and its own threads. A record handed to it is
//! answered for by a delivery report; the reports of a part are counted down, and
//! the last one answers for the part. With `message.timeout.ms=0` a report comes
//! only when the record is safe or when it was refused: an outage is waited for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rdkafka::{
    ClientConfig,
    client::Client,
    error::RDKafkaErrorCode,
    producer::{BaseProducer, BaseRecord, Producer},
};
use slog::{Logger, warn};

use super::{
    client::{SOCKET_TIMEOUT_MS, producer_config},
    errors::kafka_error,
    part::{InFlight, Part},
    polled::PolledProducer,
    positions::PositionRecord,
    record::Record,
    reports::Reports,
    room::{Room, cost},
    transactions::Refusals,
};
use crate::{
    Error, ErrorKind, Result,
    config::{Config, KafkaConfig},
    faults::Faults,
    messages::TopicBatch,
    schema_registry::Prefixes,
    status::Status,
};

/// librdkafka's own `batch.size`.
const DEFAULT_BATCH_SIZE: usize = 1_000_000;

/// The shared producer; a clone is the same client.
#[derive(Clone)]
pub(crate) struct KafkaProducer {
    producer: PolledProducer<Reports>,
    topics: Arc<Mutex<HashMap<Arc<str>, InFlight>>>,
    settings: ClientConfig,
    room: Room,
    /// In transactions: what no broker takes is left out of the next one.
    refusals: Option<Refusals>,
}

impl KafkaProducer {
    /// A client that connects by and by; its queue has room for `window_bytes`.
    pub fn new(
        config: &KafkaConfig,
        window_bytes: usize,
        status: Arc<Status>,
        log: Logger,
    ) -> Result<Self> {
        let settings = producer_config(config, window_bytes);
        // Nothing is connected yet: only the settings can be wrong.
        let refused = |error| {
            let error = kafka_error("cannot create the Kafka client", error);
            Error::new(ErrorKind::Config, error.story())
        };
        let reports = Reports::new(&settings, status, log);
        Ok(KafkaProducer {
            producer: PolledProducer::new(&settings, reports).map_err(refused)?,
            topics: Arc::default(),
            settings,
            room: Room::new(window_bytes),
            refusals: None,
        })
    }

    /// A client whose records are in transactions of that id; `batch_size` where a topic takes
    /// less than usual.
    pub fn transactional(
        config: &Config,
        id: &str,
        window_bytes: usize,
        batch_size: Option<usize>,
        refusals: Refusals,
        status: Arc<Status>,
        log: Logger,
    ) -> Result<Self> {
        let mut settings = producer_config(&config.kafka, window_bytes);
        let timeout = config.delivery.transaction_timeout.as_millis();
        settings.set("transactional.id", id).set("transaction.timeout.ms", timeout.to_string());
        // librdkafka wants no question to wait for longer than that.
        if !config.kafka.properties.contains_key("socket.timeout.ms") {
            settings.set("socket.timeout.ms", SOCKET_TIMEOUT_MS.min(timeout).to_string());
        }
        if let Some(bytes) = batch_size {
            settings.set("batch.size", bytes.to_string());
        }
        Ok(KafkaProducer {
            producer: create(&settings, Reports::new(&settings, status, log))?,
            topics: Arc::default(),
            settings,
            room: Room::new(window_bytes),
            refusals: Some(refusals),
        })
    }

    /// The client itself, for calls that block.
    pub fn with_client<T>(&self, what: impl FnOnce(&BaseProducer<Reports>) -> T) -> T {
        what(&self.producer)
    }

    /// Sends a position and waits until a broker has it, or has refused it: then the
    /// transaction can't be committed.
    pub async fn send_position(&self, record: &PositionRecord) -> Result<()> {
        let topic: Arc<str> = record.topic.as_str().into();
        let in_flight = self.in_flight(&topic);
        let part = Part::of_position(topic, in_flight.clone(), self.room.clone());
        let record = record.to_record(part);
        let cost = position_cost(&record);
        self.room.take(cost);
        self.producer.send(record).map_err(|(error, _)| {
            self.room.give(cost);
            kafka_error("cannot send the position", error)
        })?;
        in_flight.ended().await;
        Ok(())
    }

    /// A new client in this one's place, if librdkafka has given this one up. All
    /// that it held has ended by then, badly.
    pub fn renewed(&self) -> Result<Option<Self>> {
        let Some((code, reason)) = self.client().fatal_error() else { return Ok(None) };
        let reports = self.client().context();
        warn!(reports.log, "Kafka client gave up, making a new one"; "error" => %code, "reason" => reason);
        let producer = create(&self.settings, reports.renewed())?;
        Ok(Some(KafkaProducer { producer, ..self.clone() }))
    }

    /// Another client, whose batches are at most so large, where that is said: a topic that
    /// takes less than the usual batch would refuse it whole, good records included.
    pub fn another(&self, batch_size: Option<usize>) -> Result<Self> {
        let mut settings = self.settings.clone();
        if let Some(bytes) = batch_size {
            settings.set("batch.size", bytes.to_string());
        }
        let producer = create(&settings, self.client().context().renewed())?;
        Ok(KafkaProducer { producer, settings, ..self.clone() })
    }

    /// The most bytes of one batch.
    pub fn batch_size(&self) -> usize {
        let set = self.settings.get("batch.size").and_then(|bytes| bytes.parse().ok());
        set.unwrap_or(DEFAULT_BATCH_SIZE)
    }

    /// What a topic has in flight, also from actors that are gone.
    pub fn in_flight(&self, topic: &Arc<str>) -> InFlight {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(Arc::clone(topic)).or_default().clone()
    }

    pub fn client(&self) -> &Client<Reports> {
        self.producer.client()
    }

    /// What its client was made with.
    pub fn settings(&self) -> &ClientConfig {
        &self.settings
    }

    /// The bootstrap brokers.
    pub fn brokers(&self) -> &str {
        self.settings.get("bootstrap.servers").unwrap_or_default()
    }

    /// A part to send, each of whose records will end once, one way or the other.
    pub fn part(
        &self,
        batch: TopicBatch,
        prefixes: Prefixes,
        in_flight: InFlight,
        faults: Faults,
    ) -> Arc<Part> {
        let (room, refusals) = (self.room.clone(), self.refusals.clone());
        Part::new(batch, prefixes, in_flight, room, refusals, faults)
    }

    /// Queues the event at `index` of the part; `false` when the queue is full: try again later.
    pub fn send(&self, part: &Arc<Part>, index: usize) -> bool {
        if self.room.is_full() {
            return false;
        }
        if let Some(error) = part.known_refusal(index) {
            part.refuse(index, error);
            return true;
        }
        let Some((event, made)) = part.event(index) else { return true };
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                part.refuse(index, error);
                return true;
            }
        };
        let record = Record::new(event, made.as_ref());
        let cost = part.cost(&record);
        let Record { key, value, headers, partition, timestamp_ms } = record;
        let mut record =
            BaseRecord::with_opaque_to(part.topic(), Arc::clone(part)).key(key).headers(headers);
        (record.payload, record.partition, record.timestamp) = (value, partition, timestamp_ms);
        // Before it is there: its report may come before this returns.
        self.room.take(cost);
        let Err((error, _)) = self.producer.send(record) else { return true };
        self.room.give(cost);
        let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        if !full {
            part.failed_at(index, error);
        }
        !full
    }
}

fn position_cost(record: &BaseRecord<'_, String, Vec<u8>, Arc<Part>>) -> usize {
    let key = record.key.map(String::as_bytes);
    cost(key, record.payload.map(Vec::as_slice), 0)
}

fn create(settings: &ClientConfig, reports: Reports) -> Result<PolledProducer<Reports>> {
    PolledProducer::new(settings, reports)
        .map_err(|error| kafka_error("cannot create the Kafka client", error))
}

#[cfg(test)]
mod tests;
