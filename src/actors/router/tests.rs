use actix::Addr;
use prost::Message as _;
use slog::o;
use tokio::sync::mpsc;

use super::*;
use crate::{
    ErrorKind, Event, Lsn, TransactionInfo,
    checkpoint::Cut,
    config::{Config, RefusalPolicy, Route, RouteMatch},
    messages::{
        BatchId, ByteWindow, HandlerOutput, Record,
        probe::{exit, probe},
    },
    proto::OutboxEvent,
    routing::{CachedRoutes, OwnTopics},
};

struct Bench {
    router: Addr<Router>,
    openings: mpsc::UnboundedReceiver<OpenLane>,
    done: mpsc::UnboundedReceiver<BatchDone>,
    failed: mpsc::UnboundedReceiver<ChainFailed>,
    window: ByteWindow,
}

/// What a lane's actor is sent.
type Sent = mpsc::UnboundedReceiver<TopicBatch>;

impl Bench {
    fn new() -> Self {
        Bench::with_policy(RefusalPolicy::DeadLetter)
    }

    fn with_policy(policy: RefusalPolicy) -> Self {
        Bench::with(policy, Config::default())
    }

    fn with(policy: RefusalPolicy, mut config: Config) -> Self {
        config.kafka.topic_prefix = Some("shop".into());
        let (lanes, openings) = probe();
        let (to, done) = probe();
        let (failing, failed) = probe();
        let window = ByteWindow::new(1_000);
        let status = Arc::new(Status::new(window.clone()));
        let log = Logger::root(slog::Discard, o!());
        let router = Router {
            sorter: EventSorter {
                handlers: HandlerLaneNames::default(),
                topics_of_handlers: ChosenTopics::of_kafka(100, OwnTopics::new(&Config::default())),
                routing: CachedRoutes::new(&config).expect("valid routes"),
                usual_topics: 1,
                filtered_lane: None,
                dead_letters: DeadLetters { policy, topic: "shop.dead-letter".into() },
                status: Arc::clone(&status),
                log: log.clone(),
            },
            deliveries: Deliveries::default(),
            exactly_once: None,
            lanes,
            done: to,
            failed: failing,
            status,
            faults: Faults::default(),
            log,
            exit: exit(ActorKind::Router, 4),
        };
        Bench { router: router.start(), openings, done, failed, window }
    }

    /// Batch `seq` with events of these aggregate types and ids.
    fn send(&self, seq: u64, events: &[(&str, &str)]) {
        self.router.do_send(EventBatch {
            id: BatchId { generation: 4, seq },
            events: events.iter().map(|(of, id)| event(of, id)).collect(),
            commit_end_lsn: Some(Lsn::new(100 + seq)),
            end: Cut::default(),
            permit: self.window.try_acquire(10).expect("room"),
        });
    }

    async fn opening(&mut self) -> OpenLane {
        soon(&mut self.openings).await
    }

    /// Opens the lane that is asked for.
    async fn open(&mut self) -> Sent {
        let OpenLane { lane, epoch, .. } = self.opening().await;
        let (recipient, sent) = probe();
        self.router.do_send(LaneOpened { lane, epoch, recipient });
        sent
    }

    async fn batch_done(&mut self) -> BatchDone {
        soon(&mut self.done).await
    }
}

fn event(aggregate_type: &str, id: &str) -> Event {
    let event =
        OutboxEvent { id: id.into(), aggregate_type: aggregate_type.into(), ..Default::default() };
    Event::parse(event.encode_to_vec().into(), Lsn::new(1)).expect("an event")
}

fn ids(batch: &TopicBatch) -> Vec<&str> {
    batch.events.iter().map(Event::id).collect()
}

async fn next(sent: &mut Sent) -> TopicBatch {
    soon(sent).await
}

/// What comes next; a test that waits for what never comes fails.
async fn soon<T>(inbox: &mut mpsc::UnboundedReceiver<T>) -> T {
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), inbox.recv()).await;
    next.expect("it comes").expect("its sender lives")
}

#[actix::test]
async fn a_batch_is_cut_by_topic_and_keeps_its_order() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1"), ("order", "2"), ("user", "3"), ("order", "4")]);
    let (mut users, mut orders) = (bench.open().await, bench.open().await);
    let (users, orders) = (next(&mut users).await, next(&mut orders).await);
    assert_eq!((&*users.topic, &*orders.topic), ("shop.user", "shop.order"));
    assert_eq!((ids(&users), ids(&orders)), (vec!["1", "3"], vec!["2", "4"]));
    orders.ack.ack();
    assert!(bench.done.try_recv().is_err());
    users.ack.ack();
    let done = bench.batch_done().await;
    assert_eq!((done.id, done.events), (BatchId { generation: 4, seq: 0 }, 4));
    assert_eq!(done.commit_end_lsn, Some(Lsn::new(100)));
}

#[actix::test]
async fn a_lane_is_opened_once_and_batches_reach_it_in_order() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1")]);
    bench.send(1, &[("user", "2")]);
    let mut sent = bench.open().await;
    bench.send(2, &[("user", "3")]);
    for id in ["1", "2", "3"] {
        assert_eq!(ids(&next(&mut sent).await), [id]);
    }
    assert!(bench.openings.try_recv().is_err());
}

#[actix::test]
async fn batches_are_done_in_whatever_order_and_free_their_bytes_only_then() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1")]);
    bench.send(1, &[("user", "2")]);
    let mut sent = bench.open().await;
    let (first, second) = (next(&mut sent).await, next(&mut sent).await);
    second.ack.ack();
    assert_eq!(bench.batch_done().await.id.seq, 1);
    assert_eq!(bench.window.used(), 10);
    first.ack.ack();
    assert_eq!(bench.batch_done().await.id.seq, 0);
    assert_eq!(bench.window.used(), 0);
}

#[actix::test]
async fn a_lane_that_fails_is_opened_again_and_given_all_that_is_left() {
    let mut bench = Bench::new();
    for (seq, id) in ["1", "2", "3"].into_iter().enumerate() {
        bench.send(seq as u64, &[("user", id)]);
    }
    let mut sent = bench.open().await;
    next(&mut sent).await.ack.ack();
    assert_eq!(bench.batch_done().await.id.seq, 0);
    next(&mut sent).await.ack.fail_with(Error::new(ErrorKind::KafkaUnavailable, "away"), None);
    let again = bench.opening().await;
    assert_eq!((&*again.topic, again.epoch, again.failures), ("shop.user", 1, 1));
    assert_eq!(again.error.map(|error| error.kind()), Some(ErrorKind::KafkaUnavailable));
    // The token of the part behind it is dropped with the failed actor.
    drop(sent);
    let (recipient, mut sent) = probe();
    bench.router.do_send(LaneOpened { lane: again.lane, epoch: 1, recipient });
    for id in ["2", "3"] {
        let batch = next(&mut sent).await;
        assert_eq!(ids(&batch), [id]);
        batch.ack.ack();
    }
    assert_eq!((bench.batch_done().await.id.seq, bench.batch_done().await.id.seq), (1, 2));
}

#[actix::test]
async fn a_dropped_token_never_completes_its_batch() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1")]);
    let mut sent = bench.open().await;
    drop(next(&mut sent).await);
    let again = bench.opening().await;
    assert_eq!(again.error.map(|error| error.kind()), Some(ErrorKind::ActorFailed));
    assert!(bench.done.try_recv().is_err());
    assert_eq!(bench.window.used(), 10, "it is kept, to be sent again");
}

#[actix::test]
async fn a_lane_that_cannot_be_opened_or_whose_actor_ends_is_opened_again() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1")]);
    let OpenLane { lane, epoch, .. } = bench.opening().await;
    let error = Error::new(ErrorKind::KafkaRefused, "no right");
    bench.router.do_send(LaneFailed { lane, epoch, error });
    let again = bench.opening().await;
    assert_eq!((again.epoch, again.failures), (1, 1));
    assert_eq!(again.error.map(|error| error.kind()), Some(ErrorKind::KafkaRefused));
    // Where none was made, its end says nothing.
    bench.router.do_send(LaneLost { lane, epoch: 1 });
    let (recipient, mut sent) = probe();
    bench.router.do_send(LaneOpened { lane, epoch: 1, recipient });
    let part = next(&mut sent).await;
    assert_eq!(ids(&part), ["1"]);
    bench.router.do_send(LaneLost { lane, epoch: 1 });
    assert_eq!(bench.opening().await.failures, 2);
    // What is said of an opening that is over opens nothing.
    bench.router.do_send(LaneLost { lane, epoch: 1 });
    drop(part);
    let (recipient, mut sent) = probe();
    bench.router.do_send(LaneOpened { lane, epoch: 2, recipient });
    assert_eq!(ids(&next(&mut sent).await), ["1"]);
    assert!(bench.openings.try_recv().is_err());
}

#[actix::test]
async fn one_topic_that_fails_does_not_hold_the_others() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1")]);
    let mut users = bench.open().await;
    drop(next(&mut users).await);
    bench.send(1, &[("order", "2")]);
    // The first opening asked for is the failed lane's; it is left waiting.
    assert_eq!(&*bench.opening().await.topic, "shop.user");
    next(&mut bench.open().await).await.ack.ack();
    assert_eq!(bench.batch_done().await.id.seq, 1);
}

#[actix::test]
async fn an_event_without_a_legal_topic_ends_the_chain_by_policy() {
    for (policy, kind) in [
        (RefusalPolicy::Stop, ErrorKind::RecordRefused),
        (RefusalPolicy::Block, ErrorKind::RecordBlocked),
    ] {
        let mut bench = Bench::with_policy(policy);
        bench.send(0, &[("user", "1"), ("us er", "2")]);
        let failed = soon(&mut bench.failed).await;
        assert_eq!((failed.actor, failed.generation), (ActorKind::Router, 4));
        assert_eq!(failed.error.kind(), kind);
        assert!(bench.done.try_recv().is_err());
    }
}

#[actix::test]
async fn an_event_without_a_legal_topic_becomes_a_dead_letter() {
    let mut bench = Bench::new();
    bench.send(0, &[("us er", "2")]);
    assert_eq!(&*bench.opening().await.topic, "shop.dead-letter");
}

#[actix::test]
async fn a_batch_waits_for_what_was_refused_of_it_to_be_parked() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1"), ("user", "2")]);
    let mut users = bench.open().await;
    let batch = next(&mut users).await;
    let error = Error::new(ErrorKind::RecordRefused, "never");
    batch.ack.refuse_records(vec![crate::messages::Refused { index: 1, error }]);
    let mut letters = bench.open().await;
    let letter = next(&mut letters).await;
    assert_eq!(letter.events.len(), 1);
    assert_eq!(letter.events[0].id(), "2");
    assert_eq!(letter.events[0].refusal().and_then(|r| r.topic.as_deref()), Some("shop.user"));
    assert!(bench.done.try_recv().is_err(), "not before it is parked");
    letter.ack.ack();
    assert_eq!(bench.batch_done().await.events, 2);
}

#[actix::test]
async fn events_that_go_on_in_another_order_end_the_chain() {
    let mut bench = Bench::new();
    bench.send(0, &[("user", "1"), ("user", "2")]);
    let mut users = bench.open().await;
    let output = vec![HandlerOutput::Event(1), HandlerOutput::Event(0)];
    next(&mut users).await.ack.forward(output, Vec::new());
    let error = soon(&mut bench.failed).await.error;
    let text = "events of a handler did not go on in their order";
    assert!(error.to_string().contains(text), "{error}");
    assert!(bench.done.try_recv().is_err());
}

/// Rows of one COPY have the same LSN.
#[actix::test]
async fn each_event_of_a_handler_is_parked_whose_records_no_topic_takes() {
    let mut bench = Bench::new();
    let copied = |(ordinal, id): (u64, &str)| {
        let mut event = event("user", id);
        let commit_lsn = Lsn::new(7);
        event.set_transaction(TransactionInfo { xid: 1, commit_time_ns: 0, commit_lsn, ordinal });
        event
    };
    bench.router.do_send(EventBatch {
        id: BatchId { generation: 4, seq: 0 },
        events: [(1, "1"), (2, "2")].map(copied).into(),
        commit_end_lsn: Some(Lsn::new(100)),
        end: Cut::default(),
        permit: bench.window.try_acquire(10).expect("room"),
    });
    let mut users = bench.open().await;
    let batch = next(&mut users).await;
    let nowhere = |event| HandlerOutput::from(Record::of(event).topic("not legal"));
    let output = batch.events.iter().flat_map(|event| [nowhere(event), nowhere(event)]).collect();
    batch.ack.forward(output, Vec::new());
    let letters = next(&mut bench.open().await).await;
    assert_eq!((&*letters.topic, ids(&letters)), ("shop.dead-letter", vec!["1", "2"]));
}

#[actix::test]
async fn an_event_of_several_topics_is_done_when_all_of_them_have_it() {
    let matches = RouteMatch { aggregate_type: Some("order".into()), ..Default::default() };
    let topic = vec!["orders".into(), "audit".into()];
    let route = vec![Route { matches, topic, ..Default::default() }];
    let config = Config { route, ..Default::default() };
    let mut bench = Bench::with(RefusalPolicy::DeadLetter, config);
    bench.send(0, &[("order", "1"), ("user", "2"), ("order", "3")]);
    let mut batches = Vec::new();
    for (topic, expected) in
        [("orders", vec!["1", "3"]), ("audit", vec!["1", "3"]), ("shop.user", vec!["2"])]
    {
        let mut sent = bench.open().await;
        let batch = next(&mut sent).await;
        assert_eq!((&*batch.topic, ids(&batch)), (topic, expected));
        batches.push((batch, sent));
    }
    let mut batches = batches.into_iter();
    let (orders, mut orders_lane) = batches.next().expect("orders");
    let (audit, mut audit_lane) = batches.next().expect("audit");
    let (users, _users_lane) = batches.next().expect("users");
    // One topic fails and is sent its part again; the other is not.
    orders.ack.ack();
    users.ack.ack();
    audit.ack.fail_with(Error::new(ErrorKind::KafkaUnavailable, "away"), None);
    let again = bench.opening().await;
    assert_eq!(&*again.topic, "audit");
    assert!(bench.done.try_recv().is_err() && orders_lane.try_recv().is_err());
    audit_lane.close();
    let (recipient, mut audit_lane) = probe();
    bench.router.do_send(LaneOpened { lane: again.lane, epoch: again.epoch, recipient });
    next(&mut audit_lane).await.ack.ack();
    let done = bench.batch_done().await;
    assert_eq!((done.id.seq, done.events), (0, 3), "an event counts once");
    assert_eq!(bench.window.used(), 0);
}

#[actix::test]
async fn a_batch_of_which_nothing_is_sent_is_done() {
    let config =
        Config { route: vec![Route { drop: true, ..Default::default() }], ..Default::default() };
    let mut bench = Bench::with(RefusalPolicy::DeadLetter, config);
    bench.send(0, &[("order", "1"), ("user", "2")]);
    let done = bench.batch_done().await;
    assert_eq!((done.id.seq, done.commit_end_lsn), (0, Some(Lsn::new(100))));
    assert_eq!(bench.window.used(), 0);
    assert!(bench.openings.try_recv().is_err());
}

#[actix::test]
async fn an_unrouted_event_may_end_the_chain() {
    let matches = RouteMatch { aggregate_type: Some("order".into()), ..Default::default() };
    let mut config =
        Config { route: vec![Route { matches, ..Default::default() }], ..Default::default() };
    config.kafka.unrouted = crate::config::Unrouted::Stop;
    let mut bench = Bench::with(RefusalPolicy::DeadLetter, config);
    bench.send(0, &[("order", "1"), ("user", "2")]);
    let failed = soon(&mut bench.failed).await;
    assert!(failed.error.to_string().contains("no [[route]] takes"), "{}", failed.error);
    assert!(!failed.error.is_transient() && bench.done.try_recv().is_err());
}
