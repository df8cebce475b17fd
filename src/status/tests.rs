//! Tests of the snapshot after reports of actors.

use super::*;
use crate::ErrorKind;

fn status() -> (Status, Arc<str>) {
    (Status::new(ByteWindow::new(1_000)), "shop.user".into())
}

#[test]
fn a_topic_names_the_cause_of_its_events_wait() {
    let (status, topic) = status();
    let blocked_by = || status.snapshot().topics[&*topic].blocked_by;
    status.waits(&topic, 2);
    assert_eq!(blocked_by(), Some(BlockedBy::Topic));
    status.topic_open(&topic);
    // In flight to Kafka, it waits for nothing else.
    assert_eq!(blocked_by(), None);
    status.kafka_trouble("broker down".into());
    assert_eq!(blocked_by(), Some(BlockedBy::Kafka));
    status.pause(&topic, true);
    assert_eq!(blocked_by(), Some(BlockedBy::Pause));
    status.pause(&topic, false);
    status.delivered(&topic, 1, Duration::ZERO);
    assert_eq!(blocked_by(), None);
    status.handler_retries(&topic, "not yet".into(), true);
    assert_eq!(blocked_by(), Some(BlockedBy::Handler));
    status.handler_goes_on(&topic);
    status.topic_failed(&topic, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
    assert_eq!(blocked_by(), Some(BlockedBy::Topic));
    status.delivered(&topic, 1, Duration::ZERO);
    let topic = status.snapshot().topics.remove(&*topic).expect("it is there");
    assert_eq!((topic.blocked_by, topic.handler_retries), (None, 1));
    assert!(topic.last_error_at.is_some_and(|at| at > 1_600_000_000));
    let timed: Vec<_> = topic.blocked_seconds.into_keys().collect();
    use BlockedBy::{Handler, Kafka, Pause, Topic};
    assert_eq!(timed, [Topic, Pause, Handler, Kafka]);
}

#[test]
fn a_waiting_actor_is_blocked_and_keeps_its_last_error() {
    let (status, _) = status();
    let reader = || status.snapshot().actors.remove("wal_reader").expect("it is there");
    status.actor_is("wal_reader", ActorState::Running);
    status.actor_waits("wal_reader", Some(BlockedBy::Window));
    assert_eq!(reader().state, ActorState::Blocked);
    status.actor_failed("wal_reader", &Error::new(ErrorKind::PostgresUnavailable, "gone"));
    status.actor_is("wal_reader", ActorState::Running);
    let now = reader();
    assert_eq!((now.state, now.blocked_by, now.restarts), (ActorState::Running, None, 1));
    assert_eq!(now.last_error.as_deref(), Some("gone"));
    assert!(now.last_error_at.is_some() && now.blocked_seconds.len() == 1);
    assert_eq!(status.snapshot().restarts, [("wal_reader", 1)].into());
    status.stopped();
    assert_eq!(reader().state, ActorState::Stopped);
}

#[test]
fn lag_counts_the_known_wal_that_is_not_delivered() {
    let (status, topic) = status();
    assert_eq!(status.snapshot().lag, Lag::default(), "not running, nobody knows");
    status.set_state(PipelineState::Running);
    status.received(Lsn::new(700));
    status.starts_at(Lsn::new(100));
    status.safe(Lsn::new(300));
    status.waits(&topic, 3);
    let lag = |bytes, seconds| Lag { bytes, events: 3, seconds };
    assert_eq!(status.snapshot().lag, lag(400, Some(0.0)));
    let retained = Retention { wal_end: Lsn::new(1_300), ..Retention::default() };
    status.retained_wal(retained, None);
    assert_eq!(status.snapshot().lag, lag(1_000, Some(0.0)));
    // Committed in 2000, and on its way.
    status.batch_read(Some(Lsn::new(700)), Some(0), TransactionBoundary::Between);
    assert!(status.snapshot().lag.seconds.is_some_and(|seconds| seconds > 8e8));
    status.safe(Lsn::new(700));
    assert_eq!(status.snapshot().lag, lag(600, Some(0.0)));
    status.set_state(PipelineState::StandingBy { error: "active for PID 7".into() });
    assert_eq!(status.snapshot().lag, Lag::default());
}
