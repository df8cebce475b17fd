//! The librdkafka producer that topic actors share, and the count of its records in flight.
//!
//! librdkafka has its own queue and threads, and reports the delivery of each record. The last
//! report of a batch triggers the answer for the batch. With `message.timeout.ms=0` a report comes
//! only once the record is safe or refused: librdkafka waits through an outage.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    client::Client,
    error::RDKafkaErrorCode,
    producer::{BaseRecord, Producer, PurgeConfig},
};
use slog::{Logger, debug, warn};

use super::{
    KafkaObserver, KafkaSettings,
    client::producer_config,
    errors::kafka_error,
    first_records::AcknowledgedPartitions,
    headers::owned_headers,
    in_flight::InFlight,
    limits::BatchLimits,
    pending_batch::{PendingBatch, Sent, Terms},
    polled::PolledProducer,
    queue_budget::QueueBudget,
    reports::Reports,
};
use crate::{Error, ErrorKind, Result, faults::Faults, record::Record};

/// librdkafka's own `batch.size`.
pub(super) const DEFAULT_BATCH_SIZE: usize = 1_000_000;

/// Pause between two looks at what a client that gave up still has.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(20);

/// The shared producer; a clone is the same client.
#[derive(Clone)]
pub(crate) struct KafkaProducer {
    producer: PolledProducer<Reports>,
    topics: Arc<Mutex<HashMap<Arc<str>, InFlight>>>,
    settings: ClientConfig,
    budget: QueueBudget,
    limits: BatchLimits,
}

impl KafkaProducer {
    /// A client that connects by and by; its queue has room for `window_bytes`.
    pub fn new(
        settings: &KafkaSettings,
        window_bytes: usize,
        observer: Arc<dyn KafkaObserver>,
        log: Logger,
    ) -> Result<Self> {
        let mut settings = producer_config(settings, window_bytes);
        // Where a batch is refused, the client sends nothing behind it and gives up: some of its
        // records are sent again, and come before what was behind them.
        settings.set("enable.gapless.guarantee", "true");
        // Nothing is connected yet: only the settings can be wrong.
        let refused = |error| {
            let error = kafka_error("cannot create the Kafka client", error);
            Error::new(ErrorKind::Config, error.without_remedy())
        };
        let reports = Reports::new(&settings, observer, log);
        Ok(KafkaProducer {
            producer: PolledProducer::new(&settings, reports).map_err(refused)?,
            topics: Arc::default(),
            settings,
            budget: QueueBudget::new(window_bytes),
            limits: BatchLimits::default(),
        })
    }

    /// A new client in this one's place, if librdkafka has given this one up. All
    /// that it held has ended by then, badly.
    pub fn renewed(&self) -> Result<Option<Self>> {
        let Some((code, reason)) = self.client().fatal_error() else { return Ok(None) };
        let reports = self.client().context();
        match code {
            // The record that it gave up for is named where that is dealt with.
            RDKafkaErrorCode::GaplessGuarantee => {
                debug!(reports.log, "making a Kafka client after a refused batch"; "reason" => reason);
            }
            _ => {
                warn!(reports.log, "Kafka client gave up, making a new one";
                    "error" => %code, "reason" => reason);
            }
        }
        let producer = create(&self.settings, reports.renewed())?;
        self.retire();
        Ok(Some(KafkaProducer { producer, ..self.clone() }))
    }

    /// Keeps a client that gave up until the brokers have answered for all that it has sent: it
    /// sends nothing more, also not what it would send again.
    fn retire(&self) {
        let producer = self.producer.clone();
        let wait = move || {
            while producer.in_flight_count() > 0 {
                producer.purge(PurgeConfig::default().queue());
                thread::sleep(GIVE_UP_PAUSE);
            }
        };
        // Without a thread it ends with its last user, and what it has sent may be sent twice.
        let _ = thread::Builder::new().name("kafka-retired".into()).spawn(wait);
    }

    /// Another client, whose batches are at most so large, where that is said: a topic that
    /// takes less than the usual batch would refuse it whole, good records included.
    pub fn another(&self, batch_size: Option<usize>) -> Result<Self> {
        let mut settings = self.settings.clone();
        if let Some(bytes) = batch_size {
            settings.set("batch.size", bytes.to_string());
        }
        self.with_settings(settings)
    }

    /// Another client, each of whose batches is one record, so that an error is that record's. It
    /// goes on after one that is refused: nobody sends the next before the last has ended.
    pub fn one_by_one(&self) -> Result<Self> {
        let mut settings = self.settings.clone();
        settings.set("batch.num.messages", "1").set("linger.ms", "0");
        settings.remove("queue.buffering.max.ms");
        settings.set("enable.gapless.guarantee", "false");
        self.with_settings(settings)
    }

    fn with_settings(&self, settings: ClientConfig) -> Result<Self> {
        let producer = create(&settings, self.client().context().renewed())?;
        Ok(KafkaProducer { producer, settings, ..self.clone() })
    }

    /// Batch sizes that topics are known to take.
    pub fn limits(&self) -> &BatchLimits {
        &self.limits
    }

    /// The most bytes of one batch.
    pub fn batch_size(&self) -> usize {
        let set = self.settings.get("batch.size").and_then(|bytes| bytes.parse().ok());
        set.unwrap_or(DEFAULT_BATCH_SIZE)
    }

    /// The count of a topic's records in flight, including those of actors that have ended.
    pub fn in_flight(&self, topic: &Arc<str>) -> InFlight {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(Arc::clone(topic)).or_default().clone()
    }

    pub fn client(&self) -> &Client<Reports> {
        self.producer.client()
    }

    /// The terms on which it sends.
    pub fn terms(&self) -> Terms {
        Terms {
            budget: self.budget.clone(),
            limits: self.limits.clone(),
            batch_size: self.batch_size(),
            partitions: AcknowledgedPartitions::default(),
            block: false,
            stopped: Arc::default(),
            faults: Faults::default(),
        }
    }

    /// Queues the record at `index` of the part, if it `may` go now. Where it goes `alone`,
    /// its batch has no other record.
    pub fn send(
        &self,
        part: &Arc<PendingBatch>,
        index: usize,
        alone: bool,
        may: impl FnOnce(&Record) -> bool,
    ) -> Queued {
        if self.budget.is_full() {
            return Queued::NoRoom;
        }
        let record = match part.record(index) {
            Ok(record) => record,
            Err(error) => {
                part.refuse(index, error);
                return Queued::Done;
            }
        };
        if !may(&record) {
            return Queued::NotNow;
        }
        let sent = Sent::new(part, index, &record, alone);
        let Err((error, record)) = self.producer.send(base_record(part.topic(), &record, sent))
        else {
            return Queued::Done;
        };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return Queued::NoRoom;
        }
        // It never was in a batch.
        record.delivery_opaque.not_sent(error);
        Queued::Done
    }
}

fn base_record<'a>(
    topic: &'a str,
    record: &'a Record,
    sent: Box<Sent>,
) -> BaseRecord<'a, [u8], [u8], Box<Sent>> {
    let mut base = BaseRecord::with_opaque_to(topic, sent).key(&record.key[..]);
    base.payload = record.value.as_deref();
    (base.partition, base.timestamp) = (record.partition, record.timestamp_ms);
    if record.headers.is_empty() { base } else { base.headers(owned_headers(&record.headers)) }
}

/// Result of queueing a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// It is queued; or there is no record, and the reason is noted.
    Done,
    /// The queue is full: try again later.
    NoRoom,
    /// It may not be sent yet.
    NotNow,
}

fn create(settings: &ClientConfig, reports: Reports) -> Result<PolledProducer<Reports>> {
    PolledProducer::new(settings, reports)
        .map_err(|error| kafka_error("cannot create the Kafka client", error))
}

#[cfg(test)]
mod tests;
