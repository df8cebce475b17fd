//! The one Kafka client under all topic actors, and the bookkeeping of what it has in flight.
//!
//! librdkafka keeps its own queue and its own threads. A record handed to it is
//! answered for by a delivery report; the reports of a part are counted down, and
//! the last one answers for the part. With `message.timeout.ms=0` a report comes
//! only when the record is safe or when it was refused: an outage is waited for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
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
    part::{InFlight, Part},
    polled::PolledProducer,
    positions::PositionRecord,
    record::Record,
    room::{Room, cost},
    statistics,
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
        let reports = Reports::new(status, log);
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
        let socket = settings.get("socket.timeout.ms").and_then(|ms| ms.parse().ok());
        if socket.is_none_or(|socket: u128| socket > timeout) {
            settings.set("socket.timeout.ms", timeout.to_string());
        }
        if let Some(bytes) = batch_size {
            settings.set("batch.size", bytes.to_string());
        }
        Ok(KafkaProducer {
            producer: create(&settings, Reports::new(status, log))?,
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

    /// Another client, whose batches are at most `bytes` large: a topic that takes
    /// less than the usual batch would refuse it whole, good records included.
    pub fn with_batch_size(&self, bytes: usize) -> Result<Self> {
        let mut settings = self.settings.clone();
        settings.set("batch.size", bytes.to_string());
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

    fn passes(&self) -> bool {
        self.clone().led_to(String::new()).is_transient()
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

    /// Those of another client in this one's place.
    fn renewed(&self) -> Self {
        Reports::new(Arc::clone(&self.status), self.log.clone())
    }

    /// The last complaint.
    pub fn trouble(&self) -> Option<Trouble> {
        self.last.borrow().clone()
    }

    /// Waits for a complaint that does not pass by itself.
    pub async fn refusal(&self) -> Trouble {
        let mut last = self.last.subscribe();
        let refused =
            |trouble: &Option<Trouble>| trouble.as_ref().is_some_and(|trouble| !trouble.passes());
        match last.wait_for(refused).await.map(|trouble| trouble.clone()) {
            Ok(Some(trouble)) => trouble,
            // The sender lives in `self`.
            _ => std::future::pending().await,
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(self.log, "librdkafka"; "level" => ?level, "facility" => facility, "text" => message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Where a reader asked to be told, that is no trouble.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
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
        let (Ok(record) | Err((_, record))) = result;
        part.leaves(record);
        match result {
            Ok(record) if record.offset() >= 0 => part.delivered(),
            // librdkafka infers that it was written, and no broker has said so: what
            // may be missing is sent again.
            Ok(record) => {
                let uncertain = KafkaError::MessageProduction(RDKafkaErrorCode::Inconsistent);
                part.failed(uncertain, record);
            }
            Err((error, record)) => part.failed(error.clone(), record),
        }
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
        Event, Lsn,
        config::{Config, Format, Route},
        messages::{AckToken, ByteWindow, PartDone},
        proto::OutboxEvent,
        routing::{Placed, Routing},
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

    fn producer(config: &KafkaConfig, window_bytes: usize) -> KafkaProducer {
        let log = Logger::root(slog::Discard, slog::o!());
        KafkaProducer::new(config, window_bytes, Status::unwatched(), log).expect("a producer")
    }

    /// So many records of two topics each, larger in JSON than as they came.
    fn larger_than_read(count: usize) -> Vec<Event> {
        let wire = OutboxEvent {
            aggregate_type: "order".into(),
            metadata: [("m".to_owned(), "\u{1}".repeat(1_000))].into(),
            ..Default::default()
        };
        let route = Route {
            topic: vec!["a".into(), "b".into()],
            format: Some(Format::Json),
            ..Default::default()
        };
        let config = Config { route: vec![route], ..Default::default() };
        let mut routing = Routing::new(&config).expect("routes");
        let event = Event::parse(wire.encode_to_vec().into(), Lsn::new(1)).expect("well formed");
        let placed = (0..count).map(|_| routing.place(event.clone()));
        let several = placed.map(|placed| match placed {
            Placed::Several(all) => all,
            _ => panic!("it goes to two topics"),
        });
        several.flatten().map(|(_, event)| event).collect()
    }

    #[actix::test]
    async fn what_finds_no_room_in_the_queue_waits_as_an_event() {
        const WINDOW: usize = 20_000;
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        let config =
            KafkaConfig { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
        let producer = producer(&config, WINDOW);
        producer.client().fetch_metadata(Some(TOPIC), LIMIT).expect("metadata");
        cluster.broker_round_trip_time(1, Duration::from_secs(1)).expect("a slow broker");
        let (sender, mut answers) = mpsc::unbounded_channel();
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        let ack = AckToken::new((0, 0, 0), Answers(sender).start().recipient(), permit);
        let events = larger_than_read(10);
        let (count, largest) = (events.len(), 6 * 1_000 + 1_500);
        let batch = TopicBatch { topic: TOPIC.into(), events: Arc::new(events), ack };
        let (prefixes, in_flight) = (Prefixes::default(), InFlight::default());
        let part = producer.part(batch, prefixes, in_flight, Faults::default());
        let sent = (0..count).take_while(|index| producer.send(&part, *index)).count();
        assert!((2..=4).contains(&sent), "{sent} of {count} found room");
        assert!(producer.room.taken() < WINDOW + largest);
        // As the actor does: each goes in as one goes out.
        cluster.broker_round_trip_time(1, Duration::ZERO).expect("a quick broker");
        let begin = Instant::now();
        let mut next = sent;
        while next < count {
            next += usize::from(producer.send(&part, next));
            assert!(begin.elapsed() < LIMIT, "there is room again");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(answers.recv().await, Some(true));
        assert_eq!(producer.room.taken(), 0);
    }

    #[actix::test]
    async fn a_batch_that_fails_while_the_next_is_on_its_way_is_neither_lost_nor_overtaken() {
        let cluster = MockCluster::new(1).expect("a cluster");
        let config =
            KafkaConfig { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
        let producer = producer(&config, 1 << 20);
        let (sender, mut answers) = mpsc::unbounded_channel();
        let answer = Answers(sender).start().recipient();
        let window = ByteWindow::new(1 << 20);
        let send = |topic: &str, id: &str| {
            let topic: Arc<str> = topic.into();
            let permit = window.try_acquire(100).expect("room");
            let ack = AckToken::new((0, 0, 0), answer.clone(), permit);
            let events = Arc::new(vec![event(id)]);
            let batch = TopicBatch { topic: Arc::clone(&topic), events, ack };
            let in_flight = producer.in_flight(&topic);
            let part = producer.part(batch, Prefixes::default(), in_flight, Faults::default());
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
