//! The one Kafka client under all topic actors, and the bookkeeping of what it has in flight.
//!
//! librdkafka keeps its own queue and its own threads. A record handed to it is
//! answered for by a delivery report; the reports of a part are counted down, and
//! the last one answers for the part. With `message.timeout.ms=0` a report comes
//! only when the record is safe or when it was refused: an outage is waited for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rdkafka::{
    ClientConfig, ClientContext,
    client::Client,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use slog::{Logger, debug, warn};
use tokio::sync::watch;

use super::{client::producer_config, errors::kafka_error, record::record_headers};
use crate::{
    Error, Event, Result,
    config::KafkaConfig,
    faults::{FaultSite, Faults},
    messages::AckToken,
};

/// The shared producer; a clone is the same client.
#[derive(Clone)]
pub(crate) struct KafkaProducer {
    producer: ThreadedProducer<Reports>,
    topics: Arc<Mutex<HashMap<Arc<str>, InFlight>>>,
    settings: ClientConfig,
}

impl KafkaProducer {
    /// A client that connects by and by; `window_bytes` is the most that is ever given to it.
    pub fn new(config: &KafkaConfig, window_bytes: usize, log: Logger) -> Result<Self> {
        let settings = producer_config(config, window_bytes);
        Ok(KafkaProducer {
            producer: create(&settings, Reports::new(log))?,
            topics: Arc::default(),
            settings,
        })
    }

    /// A new client in this one's place, if librdkafka has given this one up. All
    /// that it held has ended by then, badly.
    pub fn renewed(&self) -> Result<Option<Self>> {
        let Some((code, reason)) = self.client().fatal_error() else { return Ok(None) };
        let log = self.client().context().log.clone();
        warn!(log, "Kafka client gave up, making a new one"; "error" => %code, "reason" => reason);
        let producer = create(&self.settings, Reports::new(log))?;
        Ok(Some(KafkaProducer { producer, ..self.clone() }))
    }

    /// What a topic has in flight, also from actors that are gone.
    pub fn in_flight(&self, topic: &Arc<str>) -> InFlight {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(Arc::clone(topic)).or_default().clone()
    }

    pub fn client(&self) -> &Client<Reports> {
        self.producer.client()
    }

    /// The bootstrap brokers.
    pub fn brokers(&self) -> &str {
        self.settings.get("bootstrap.servers").unwrap_or_default()
    }

    /// Queues one event; `false` when librdkafka's queue is full: try again later.
    pub fn send(&self, topic: &str, event: &Event, part: &Arc<Part>) -> bool {
        let record = BaseRecord::with_opaque_to(topic, Arc::clone(part))
            .key(event.aggregate_id().as_bytes())
            .payload(event.raw().as_ref())
            .headers(record_headers(event));
        match self.producer.send(record) {
            Ok(()) => true,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => false,
            Err((error, _)) => {
                part.settle(Err(kafka_error(format!("cannot send a record to {topic}"), error)));
                true
            }
        }
    }
}

fn create(settings: &ClientConfig, reports: Reports) -> Result<ThreadedProducer<Reports>> {
    settings
        .create_with_context(reports)
        .map_err(|error| kafka_error("cannot create the Kafka client", error))
}

/// Receives librdkafka's reports, on a thread of the client's.
pub(crate) struct Reports {
    last: Mutex<Option<Trouble>>,
    log: Logger,
}

/// What librdkafka last complained of.
#[derive(Clone)]
pub(crate) struct Trouble {
    error: KafkaError,
    reason: String,
}

impl Trouble {
    /// The error `what`, which this led to.
    pub fn led_to(self, what: String) -> Error {
        kafka_error(what, self.error).caused_by(self.reason)
    }
}

impl Reports {
    fn new(log: Logger) -> Self {
        Reports { last: Mutex::default(), log }
    }

    /// The last complaint.
    pub fn trouble(&self) -> Option<Trouble> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(self.log, "librdkafka"; "level" => ?level, "facility" => facility, "text" => message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" comes after the error that says why.
        let consequence = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if consequence && last.is_some() {
            return;
        }
        // It goes on trying, and complains each time; once is enough for the log.
        if last.as_ref().is_none_or(|trouble| trouble.reason != reason) {
            warn!(self.log, "Kafka client reports trouble"; "error" => %error, "reason" => reason);
        }
        *last = Some(Trouble { error, reason: reason.to_owned() });
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Part>;

    fn delivery(&self, result: &DeliveryResult<'_>, part: Arc<Part>) {
        match result {
            Ok(_) => part.settle(Ok(())),
            Err((error, _)) => {
                let what = format!("Kafka did not take a record for {}", part.topic);
                part.settle(Err(kafka_error(what, error.clone())));
            }
        }
    }
}

/// The records of one [`TopicBatch`](crate::messages::TopicBatch) on their way.
pub(crate) struct Part {
    topic: Arc<str>,
    left: AtomicUsize,
    answer: Mutex<Answer>,
    faults: Faults,
    in_flight: InFlight,
}

struct Answer {
    token: Option<AckToken>,
    error: Option<Error>,
}

impl Part {
    /// A part of `records` records, each of which will be settled once.
    pub fn new(
        topic: Arc<str>,
        records: usize,
        token: AckToken,
        in_flight: InFlight,
        faults: Faults,
    ) -> Arc<Self> {
        in_flight.0.send_modify(|parts| *parts += 1);
        let answer = Mutex::new(Answer { token: Some(token), error: None });
        Arc::new(Part { topic, left: AtomicUsize::new(records), answer, faults, in_flight })
    }

    /// One record has ended. The last one answers for the part: acknowledged if
    /// all were, else failed with the first error.
    fn settle(&self, result: Result<()>) {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = result {
            answer.error.get_or_insert(error);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (token, error) = (answer.token.take(), answer.error.take());
        drop(answer);
        if let Some(token) = token {
            self.faults.reach(FaultSite::AfterProduce);
            match error {
                None => token.ack(),
                Some(error) => token.fail(error),
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.in_flight.0.send_modify(|parts| *parts = parts.saturating_sub(1));
    }
}

/// How many parts of a topic are in librdkafka's hands.
///
/// It belongs to the topic and not to its actor: who follows on a failed actor
/// must not send before what that one sent has ended, or the order would break.
#[derive(Clone)]
pub(crate) struct InFlight(Arc<watch::Sender<usize>>);

impl Default for InFlight {
    fn default() -> Self {
        InFlight(Arc::new(watch::Sender::new(0)))
    }
}

impl InFlight {
    /// Waits until nothing is in flight. Cancel-safe.
    pub async fn ended(&self) {
        // The sender is part of self, so the channel can't close meanwhile.
        let _ = self.0.subscribe().wait_for(|parts| *parts == 0).await;
    }
}
