//! The one Kafka client under all topic actors, and the bookkeeping of what it has in flight.
//!
//! librdkafka keeps its own queue and its own threads. A record handed to it is
//! answered for by a delivery report; the reports of a part are counted down, and
//! the last one answers for the part. With `message.timeout.ms=0` a report comes
//! only when the record is safe or when it was refused: an outage is waited for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    client::Client,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use slog::{Logger, debug, warn};
use tokio::sync::watch;

use super::{
    client::producer_config,
    errors::{kafka_error, told},
    polled::PolledProducer,
    positions::PositionRecord,
    record::{is_record_of, place_refused, record_headers, record_key, record_place, record_value},
    statistics,
    transactions::Refusals,
};
use crate::{
    Error, ErrorKind, Event, Result,
    config::{Config, KafkaConfig},
    faults::{FaultSite, Faults},
    messages::{AckToken, Refused, TopicBatch},
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
}

impl KafkaProducer {
    /// A client that connects by and by; `window_bytes` is the most that is ever given to it.
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
        let reports = Reports::new(status, log);
        Ok(KafkaProducer {
            producer: PolledProducer::new(&settings, reports).map_err(refused)?,
            topics: Arc::default(),
            settings,
        })
    }

    /// A client whose records are in transactions of that id; `batch_size` where a topic takes
    /// less than usual.
    pub fn transactional(
        config: &Config,
        id: &str,
        window_bytes: usize,
        batch_size: Option<usize>,
        status: Arc<Status>,
        log: Logger,
    ) -> Result<Self> {
        let mut settings = producer_config(&config.kafka, window_bytes);
        settings.set("transactional.id", id).set(
            "transaction.timeout.ms",
            config.delivery.transaction_timeout.as_millis().to_string(),
        );
        if let Some(bytes) = batch_size {
            settings.set("batch.size", bytes.to_string());
        }
        Ok(KafkaProducer {
            producer: create(&settings, Reports::new(status, log))?,
            topics: Arc::default(),
            settings,
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
        let part = Part::of_position(topic, in_flight.clone());
        self.producer
            .send(record.to_record(part))
            .map_err(|(error, _)| kafka_error("cannot send the position", error))?;
        in_flight.ended().await;
        Ok(())
    }

    /// A new client in this one's place, if librdkafka has given this one up. All
    /// that it held has ended by then, badly.
    pub fn renewed(&self) -> Result<Option<Self>> {
        let Some((code, reason)) = self.client().fatal_error() else { return Ok(None) };
        let Reports { status, log, .. } = &**self.client().context();
        warn!(log, "Kafka client gave up, making a new one"; "error" => %code, "reason" => reason);
        let reports = Reports::new(Arc::clone(status), log.clone());
        let producer = create(&self.settings, reports)?;
        Ok(Some(KafkaProducer { producer, ..self.clone() }))
    }

    /// Another client, whose batches are at most `bytes` large: a topic that takes
    /// less than the usual batch would refuse it whole, good records included.
    pub fn with_batch_size(&self, bytes: usize) -> Result<Self> {
        let mut settings = self.settings.clone();
        settings.set("batch.size", bytes.to_string());
        let Reports { status, log, .. } = &**self.client().context();
        let producer = create(&settings, Reports::new(Arc::clone(status), log.clone()))?;
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

    /// Queues the event at `index` of the part; `false` when librdkafka's queue is
    /// full: try again later.
    pub fn send(&self, part: &Arc<Part>, index: usize) -> bool {
        let Some(event) = part.events.get(index) else { return true };
        if part.is_refused(index) {
            return true;
        }
        let mut record = BaseRecord::with_opaque_to(&part.topic, Arc::clone(part))
            .key(record_key(event))
            .headers(record_headers(event));
        record.payload = record_value(event);
        (record.partition, record.timestamp) = record_place(event);
        match self.producer.send(record) {
            Ok(()) => true,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => false,
            Err((error, _)) => {
                part.failed(error, |other| std::ptr::eq(other, event));
                true
            }
        }
    }
}

fn create(settings: &ClientConfig, reports: Reports) -> Result<PolledProducer<Reports>> {
    PolledProducer::new(settings, reports)
        .map_err(|error| kafka_error("cannot create the Kafka client", error))
}

/// Receives librdkafka's reports, on a thread of the client's.
pub(crate) struct Reports {
    last: watch::Sender<Option<Trouble>>,
    /// The client's name; known with its first statistics.
    name: OnceLock<String>,
    status: Arc<Status>,
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
        told(what, self.error, &self.reason)
    }

    /// librdkafka's words.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Reports {
    pub fn new(status: Arc<Status>, log: Logger) -> Self {
        Reports { last: watch::Sender::default(), name: OnceLock::new(), status, log }
    }

    /// The last complaint.
    pub fn trouble(&self) -> Option<Trouble> {
        self.last.borrow().clone()
    }

    /// Waits for a complaint, from now on, that does not pass by itself.
    pub async fn refusal(&self) -> Trouble {
        let mut last = self.last.subscribe();
        last.mark_unchanged();
        loop {
            // The sender is in `self`.
            if last.changed().await.is_err() {
                std::future::pending().await
            }
            let trouble = last.borrow_and_update().clone();
            let refused = |trouble: &Trouble| !trouble.clone().led_to(String::new()).is_transient();
            if let Some(trouble) = trouble.filter(refused) {
                return trouble;
            }
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(self.log, "librdkafka"; "level" => ?level, "facility" => facility, "text" => message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let last = self.trouble();
        // "All brokers are down" comes after the error that says why.
        let consequence = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if consequence && last.is_some() {
            return;
        }
        // It goes on trying, and complains each time; once is enough for the log.
        if last.as_ref().is_none_or(|trouble| trouble.reason != reason) {
            warn!(self.log, "Kafka client reports trouble"; "error" => %error, "reason" => reason);
        }
        self.status.kafka_trouble(reason.to_owned());
        self.last.send_replace(Some(Trouble { error, reason: reason.to_owned() }));
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match statistics::parse(statistics) {
            Ok((name, tells)) => {
                self.name.get_or_init(|| name.clone());
                self.status.kafka_client(name, tells);
            }
            Err(error) => debug!(self.log, "statistics can't be read"; "error" => %error),
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        if let Some(name) = self.name.get() {
            self.status.kafka_client_ended(name);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Part>;

    fn delivery(&self, result: &DeliveryResult<'_>, part: Arc<Part>) {
        match result {
            Ok(record) if record.offset() >= 0 => part.delivered(),
            // librdkafka infers that it was written, and no broker has said so: what
            // may be missing is sent again.
            Ok(record) => {
                let uncertain = KafkaError::MessageProduction(RDKafkaErrorCode::Inconsistent);
                part.failed(uncertain, |event| is_record_of(event, record));
            }
            Err((error, record)) => part.failed(error.clone(), |event| is_record_of(event, record)),
        }
    }
}

/// The records of one [`TopicBatch`](crate::messages::TopicBatch) on their way.
pub(crate) struct Part {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    left: AtomicUsize,
    answer: Mutex<Answer>,
    /// In transactions: what was refused is remembered for the next one.
    refusals: Option<Refusals>,
    faults: Faults,
    in_flight: InFlight,
}

struct Answer {
    token: Option<AckToken>,
    /// The first failure that may pass.
    error: Option<Error>,
    /// What will never be taken.
    refused: Vec<Refused>,
}

impl Part {
    /// A part, each of whose records will end once, one way or the other.
    ///
    /// What `refusals` know, for a topic in transactions, has ended before it is sent.
    pub fn new(
        batch: TopicBatch,
        in_flight: InFlight,
        refusals: Option<Refusals>,
        faults: Faults,
    ) -> Arc<Self> {
        let TopicBatch { topic, events, ack } = batch;
        in_flight.0.send_modify(|parts| *parts += 1);
        let known = |(index, event)| {
            let error = refusals.as_ref()?.of(&topic, event)?;
            Some(Refused { index, error })
        };
        let refused: Vec<_> = events.iter().enumerate().filter_map(known).collect();
        let left = AtomicUsize::new(events.len() - refused.len());
        let nothing_left = refused.len() == events.len();
        let answer = Mutex::new(Answer { token: Some(ack), error: None, refused });
        let part = Part { topic, events, left, answer, refusals, faults, in_flight };
        if nothing_left {
            part.answer(part.lock());
        }
        Arc::new(part)
    }

    /// Whether it is known that no broker takes this record.
    fn is_refused(&self, index: usize) -> bool {
        self.refusals.is_some() && self.lock().refused.iter().any(|refused| refused.index == index)
    }

    /// Of one record that is no event's, and that nobody asks after.
    fn of_position(topic: Arc<str>, in_flight: InFlight) -> Arc<Self> {
        in_flight.0.send_modify(|parts| *parts += 1);
        let answer = Answer { token: None, error: None, refused: Vec::new() };
        let (events, left) = (Arc::default(), AtomicUsize::new(1));
        let faults = Faults::default();
        Arc::new(Part {
            topic,
            events,
            left,
            answer: Mutex::new(answer),
            refusals: None,
            faults,
            in_flight,
        })
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    fn delivered(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(self.lock());
        }
    }

    fn failed(&self, error: KafkaError, is_its: impl Fn(&Event) -> bool) {
        let code = error.rdkafka_error_code();
        let mut error =
            kafka_error(format!("Kafka did not take a record for {}", self.topic), error);
        let mut answer = self.lock();
        // The report names no event. Its record does; of two with the same, each has its report.
        let index = self.events.iter().enumerate().position(|(index, event)| {
            is_its(event) && answer.refused.iter().all(|refused| refused.index != index)
        });
        let event = index.and_then(|index| self.events.get(index));
        if let Some(event) = event
            && let Some(refused) = place_refused(event, code)
        {
            error = refused.caused_by(error);
        }
        match (error.kind(), index) {
            (ErrorKind::RecordRefused | ErrorKind::RecordTooLarge, Some(index)) => {
                if let (Some(refusals), Some(event)) = (&self.refusals, event) {
                    refusals.note(&self.topic, event, &error);
                }
                answer.refused.push(Refused { index, error });
            }
            _ => {
                answer.error.get_or_insert(error);
            }
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(answer);
        }
    }

    /// The last record has ended: answers for the part.
    fn answer(&self, mut answer: MutexGuard<'_, Answer>) {
        let Answer { token, error, refused } = &mut *answer;
        let Some(token) = token.take() else { return };
        self.faults.reach(FaultSite::AfterProduce);
        match error.take() {
            // What was refused is sent again with the rest, and refused again.
            Some(error) => token.fail(error),
            None if refused.is_empty() => token.ack(),
            None => {
                let mut refused = std::mem::take(refused);
                refused.sort_by_key(|refused| refused.index);
                token.refuse(refused);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use actix::{Actor, Context, Handler};
    use bytes::Bytes;
    use prost::Message as _;
    use rdkafka::{
        Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer},
        mocking::MockCluster,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        Lsn,
        messages::{ByteWindow, PartDone},
        proto::OutboxEvent,
    };

    const LIMIT: Duration = Duration::from_secs(30);
    const TOPIC: &str = "orders";

    /// Passes on how parts ended.
    struct Answers(mpsc::UnboundedSender<bool>);

    impl Actor for Answers {
        type Context = Context<Self>;
    }

    impl Handler<PartDone> for Answers {
        type Result = ();

        fn handle(&mut self, done: PartDone, _: &mut Self::Context) {
            let _ = self.0.send(done.result.is_ok());
        }
    }

    fn event(id: &str) -> Event {
        let wire = OutboxEvent {
            id: id.into(),
            aggregate_type: "order".into(),
            aggregate_id: "7".into(),
            ..Default::default()
        };
        Event::parse(wire.encode_to_vec().into(), Lsn::new(1)).expect("well formed")
    }

    fn values(cluster: &MockCluster<'_, impl rdkafka::ClientContext>, count: usize) -> Vec<Bytes> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "test")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        let start = Offset::Beginning;
        partitions.add_partition_offset(TOPIC, 0, start).expect("a partition");
        consumer.assign(&partitions).expect("an assignment");
        let begin = Instant::now();
        let mut values = Vec::new();
        while values.len() < count && begin.elapsed() < LIMIT {
            if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
                values.push(Bytes::copy_from_slice(record.payload().unwrap_or_default()));
            }
        }
        values
    }

    #[actix::test]
    async fn a_batch_that_fails_while_the_next_is_on_its_way_is_neither_lost_nor_overtaken() {
        let cluster = MockCluster::new(1).expect("a cluster");
        let config =
            KafkaConfig { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
        let log = Logger::root(slog::Discard, slog::o!());
        let status = Arc::new(Status::new(ByteWindow::new(1 << 20)));
        let producer = KafkaProducer::new(&config, 1 << 20, status, log).expect("a producer");
        let (sender, mut answers) = mpsc::unbounded_channel();
        let answer = Answers(sender).start().recipient();
        let window = ByteWindow::new(1 << 20);
        let send = |topic: &str, id: &str| {
            let topic: Arc<str> = topic.into();
            let permit = window.try_acquire(100).expect("room");
            let ack = AckToken::new((0, 0, 0), answer.clone(), permit);
            let events = Arc::new(vec![event(id)]);
            let batch = TopicBatch { topic: Arc::clone(&topic), events, ack };
            let part = Part::new(batch, producer.in_flight(&topic), None, Faults::default());
            assert!(producer.send(&part, 0));
        };
        // Connected, and informed of the topic: from here on each record is a request.
        for topic in ["other", TOPIC] {
            cluster.create_topic(topic, 1, 1).expect("a topic");
        }
        send("other", "zeroth");
        assert_eq!(answers.recv().await, Some(true));
        producer.client().fetch_metadata(Some(TOPIC), LIMIT).expect("metadata");
        // Requests stay under way for long enough to pile up.
        cluster.broker_round_trip_time(1, Duration::from_millis(500)).expect("a slow broker");
        // What a broker says that does not know yet that it leads a new partition.
        // It knows no producer there either, and so takes any sequence number next.
        cluster.request_errors(
            RDKafkaApiKey::Produce,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION],
        );
        for id in ["first", "second", "third"] {
            send(TOPIC, id);
            // Longer than a record is held back for the next one.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for _ in 0..3 {
            let answer = tokio::time::timeout(LIMIT, answers.recv()).await.expect("in time");
            assert_eq!(answer, Some(true));
        }
        cluster.broker_round_trip_time(1, Duration::ZERO).expect("a quick broker");
        let expected = ["first", "second", "third"].map(|id| event(id).raw().clone());
        assert_eq!(values(&cluster, 3), expected);
    }
}
