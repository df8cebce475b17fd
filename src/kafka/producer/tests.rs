//! The producer against librdkafka's mock cluster.

use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use prost::Message as _;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::sync::mpsc;

use super::*;
use crate::{
    Event, Lsn,
    config::{Config, Format, KafkaConfig, Route},
    format::Prefixes,
    kafka::unobserved,
    messages::{AckToken, ByteWindow, PartDone, TopicBatch},
    proto::OutboxEvent,
    routing::{CachedRoutes, OutgoingEvents, Routed},
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

/// Queues it, if there is room.
fn send_to(producer: &KafkaProducer, part: &Arc<PendingBatch>, index: usize, alone: bool) -> bool {
    producer.send(part, index, alone, |_| true) == Queued::Done
}

fn producer(config: &KafkaConfig, window_bytes: usize) -> KafkaProducer {
    let log = Logger::root(slog::Discard, slog::o!());
    KafkaProducer::new(&config.settings(), window_bytes, unobserved(), log).expect("a producer")
}

/// Makes `count` events for two topics each, whose records are larger in JSON than the events.
fn larger_than_read(count: usize) -> OutgoingEvents {
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
    let mut routing = CachedRoutes::new(&config).expect("routes");
    let event = Event::parse(wire.encode_to_vec().into(), Lsn::new(1)).expect("well formed");
    let placed = (0..count).map(|_| routing.route(event.clone()));
    let several = placed.map(|placed| match placed {
        Routed::Several(all) => all,
        _ => panic!("it goes to two topics"),
    });
    several.flatten().map(|(_, outgoing)| outgoing).collect()
}

#[actix::test]
async fn what_finds_no_room_in_the_queue_waits_as_an_event() {
    const WINDOW: usize = 20_000;
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    let config = KafkaConfig { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
    let producer = producer(&config, WINDOW);
    producer.client().fetch_metadata(Some(TOPIC), LIMIT).expect("metadata");
    cluster.broker_round_trip_time(1, Duration::from_secs(1)).expect("a slow broker");
    let (sender, mut answers) = mpsc::unbounded_channel();
    let permit = ByteWindow::new(1).try_acquire(1).expect("room");
    let (events, plans) = larger_than_read(10).into_parts();
    let answer = Answers(sender).start().recipient();
    let ack = AckToken::new((0, 0, 0), events.len(), answer, permit).with_plans(plans);
    let (count, largest) = (events.len(), 6 * 1_000 + 1_500);
    let batch = TopicBatch { topic: TOPIC.into(), events: Arc::new(events), ack };
    let batch = batch.into_records(Prefixes::default());
    let part = PendingBatch::new(batch, InFlight::default(), producer.terms());
    let sent = (0..count).take_while(|index| send_to(&producer, &part, *index, false)).count();
    assert!((2..=4).contains(&sent), "{sent} of {count} found room");
    assert!(producer.budget.reserved() < WINDOW + largest);
    // As the actor does: each goes in as one goes out.
    cluster.broker_round_trip_time(1, Duration::ZERO).expect("a quick broker");
    let begin = Instant::now();
    let mut next = sent;
    while next < count {
        next += usize::from(send_to(&producer, &part, next, false));
        assert!(begin.elapsed() < LIMIT, "there is room again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(answers.recv().await, Some(true));
    assert_eq!(producer.budget.reserved(), 0);
}

#[actix::test]
async fn a_batch_that_fails_while_the_next_is_on_its_way_is_neither_lost_nor_overtaken() {
    let cluster = MockCluster::new(1).expect("a cluster");
    let config = KafkaConfig { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
    let producer = producer(&config, 1 << 20);
    let (sender, mut answers) = mpsc::unbounded_channel();
    let answer = Answers(sender).start().recipient();
    let window = ByteWindow::new(1 << 20);
    let send = |topic: &str, id: &str| {
        let topic: Arc<str> = topic.into();
        let permit = window.try_acquire(100).expect("room");
        let ack = AckToken::new((0, 0, 0), 1, answer.clone(), permit);
        let events = Arc::new(vec![event(id)]);
        let batch = TopicBatch { topic: Arc::clone(&topic), events, ack };
        let in_flight = producer.in_flight(&topic);
        let part =
            PendingBatch::new(batch.into_records(Prefixes::default()), in_flight, producer.terms());
        assert!(send_to(&producer, &part, 0, false));
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

/// Passes on all that is said of a part.
struct Ends(mpsc::UnboundedSender<PartDone>);

impl Actor for Ends {
    type Context = Context<Self>;
}

impl Handler<PartDone> for Ends {
    type Result = ();

    fn handle(&mut self, done: PartDone, _: &mut Self::Context) {
        let _ = self.0.send(done);
    }
}

/// A broker that looks into records, such as one that validates schemas, refuses a batch.
#[actix::test]
async fn a_batch_that_is_refused_leaves_suspects_and_one_that_is_refused_alone_is_refused() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_INVALID_RECORD as INVALID, RD_KAFKA_RESP_ERR_NO_ERROR as OK,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION as POLICY,
    };

    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    let config = KafkaConfig { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
    let producer = producer(&config, 1 << 20);
    producer.client().fetch_metadata(Some(TOPIC), LIMIT).expect("metadata");
    let (sender, mut ends) = mpsc::unbounded_channel();
    let answer = Ends(sender).start().recipient();
    let window = ByteWindow::new(1 << 20);
    let part = |producer: &KafkaProducer| {
        let permit = window.try_acquire(100).expect("room");
        let ack = AckToken::new((0, 0, 0), 3, answer.clone(), permit);
        let events = ["first", "second", "third"].map(event).to_vec();
        let batch = TopicBatch { topic: TOPIC.into(), events: Arc::new(events), ack };
        let batch = batch.into_records(Prefixes::default());
        PendingBatch::new(batch, InFlight::default(), producer.terms())
    };
    cluster.request_errors(RDKafkaApiKey::Produce, &[INVALID]);
    cluster.broker_round_trip_time(1, Duration::from_millis(200)).expect("a slow broker");
    let refused = part(&producer);
    (0..3).for_each(|index| assert!(send_to(&producer, &refused, index, false)));
    drop(refused);
    let done = tokio::time::timeout(LIMIT, ends.recv()).await.expect("in time").expect("an end");
    let error = done.result.expect_err("the batch was refused");
    assert!(error.to_string().contains("Kafka refused a batch of records for orders"), "{error}");
    let progress = done.progress;
    assert!(!progress.suspects.is_empty() && progress.at_once, "{progress:?}");
    assert!(progress.delivered.is_empty() && progress.refused.is_empty(), "{progress:?}");
    let renewed = producer.renewed().expect("a client").expect("it gave up");
    assert!(renewed.renewed().expect("a client").is_none());

    let alone = renewed.one_by_one().expect("a client");
    let tried = part(&alone);
    cluster.request_errors(RDKafkaApiKey::Produce, &[OK, POLICY, OK]);
    (0..3).for_each(|index| assert!(send_to(&alone, &tried, index, true)));
    drop(tried);
    let done = tokio::time::timeout(LIMIT, ends.recv()).await.expect("in time").expect("an end");
    let refused = done.result.expect("all ended");
    assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1]);
    let text = refused[0].error.to_string();
    assert!(text.contains("Kafka did not take the record of event second at 0/1"), "{text}");
    assert!(alone.client().fatal_error().is_none(), "it goes on");
}
