//! Faults by script, and what the producer makes of them: nothing lost, in order, nothing twice.

use std::time::{Duration, Instant};

use factlib_kafka::client::Isolation;
use factlib_testing::fake_broker::{Api, Code, FakeCluster, FirstSequence};

use crate::sending::{LIMIT, Sender, assert_exactly, assert_places, push};

async fn cluster(brokers: i32) -> FakeCluster {
    let cluster = FakeCluster::builder().brokers(brokers).start().await.expect("a cluster");
    cluster.create_topic("orders", 6).expect("a topic");
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn without_faults_all_records_arrive_in_order() {
    let cluster = cluster(3).await;
    let sender = Sender::to(&cluster, "orders").await;
    for round in 0..50 {
        sender.send(round * 100..round * 100 + 100).await;
    }
    assert_exactly(&cluster, "orders", 0..5_000).await;
    assert_places(&cluster, "orders", &sender.results).await;
}

#[tokio::test]
async fn an_answer_that_passes_is_tried_again() {
    let cluster = cluster(1).await;
    let faults = [
        cluster.on(Api::Produce).times(3).answer(Code::NotLeaderOrFollower),
        cluster.on(Api::Metadata).hang_up(),
        cluster.on(Api::InitProducerId).times(2).answer(Code::CoordinatorLoadInProgress),
    ];
    let sender = Sender::to(&cluster, "orders").await;
    sender.send(0..100).await;
    for fault in faults {
        tokio::time::timeout(LIMIT, fault.is_over()).await.expect("it was hit");
    }
    assert_exactly(&cluster, "orders", 0..100).await;
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_appended_once() {
    for rule in [FirstSequence::Any, FirstSequence::Zero] {
        let cluster = FakeCluster::builder().first_sequence(rule).start().await.expect("a cluster");
        cluster.create_topic("orders", 6).expect("a topic");
        cluster.on(Api::Produce).times(2).hang_up_after_effect();
        cluster.on(Api::Produce).after(2).times(2).hang_up();
        cluster.on(Api::Produce).times(2).append_and_answer(Code::RequestTimedOut);
        let sender = Sender::to(&cluster, "orders").await;
        for round in 0..10 {
            sender.send(round * 50..round * 50 + 50).await;
        }
        assert_exactly(&cluster, "orders", 0..500).await;
        assert_places(&cluster, "orders", &sender.results).await;
    }
}

#[tokio::test]
async fn only_the_named_records_are_refused() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("orders", 1).expect("a topic");
    cluster.on(Api::Produce).refuse_records(Code::InvalidTimestamp, "too old", &[1, 3]);
    let sender = Sender::to(&cluster, "orders").await;
    sender.send(0..5).await;
    let refused = sender.results.refused();
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(refused[&1].code, Code::InvalidTimestamp);
    assert_eq!(refused[&1].message.as_deref(), Some("too old"));
    let read = crate::sending::read(&cluster, "orders", Isolation::ReadCommitted);
    assert_eq!(read.await, [vec![0, 2, 4]]);
    assert_places(&cluster, "orders", &sender.results).await;
}

#[tokio::test]
async fn a_fault_is_limited_to_its_topic_and_ends_when_it_is_lifted() {
    let cluster = cluster(1).await;
    cluster.create_topic("denied", 1).expect("a topic");
    let denied =
        cluster.on(Api::Produce).topic("denied").always().answer(Code::TopicAuthorizationFailed);
    let (open, closed) =
        (Sender::to(&cluster, "orders").await, Sender::to(&cluster, "denied").await);
    crate::sending::push(&closed.topic, 0..3, &closed.results);
    open.send(0..100).await;
    assert_eq!(closed.results.count(), 0);
    denied.lift();
    closed.results.reach(3).await;
    assert_exactly(&cluster, "denied", 0..3).await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_cut() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("orders", 1).expect("a topic");
    cluster.set_topic_setting("orders", "max.message.bytes", "300");
    let sender = Sender::to(&cluster, "orders").await;
    sender.send(0..200).await;
    assert_eq!(sender.results.refused().len(), 0);
    assert_exactly(&cluster, "orders", 0..200).await;
    assert_places(&cluster, "orders", &sender.results).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_restart_and_leaders_that_move_lose_nothing() {
    let cluster = cluster(3).await;
    let sender = Sender::to(&cluster, "orders").await;
    for round in 0..9 {
        crate::sending::push(&sender.topic, round * 100..round * 100 + 100, &sender.results);
        match round % 3 {
            0 => cluster.restart(1 + round as i32 / 3).await.expect("it is up again"),
            1 => {
                let next = cluster.leader("orders", 0).map_or(1, |id| id % 3 + 1);
                cluster.move_leader("orders", 0, next);
            }
            _ => {
                cluster.broker_down(2).await;
                tokio::task::yield_now().await;
                cluster.broker_up(2).await.expect("it is up again");
            }
        }
        sender.results.reach(round as usize * 100 + 100).await;
    }
    assert_exactly(&cluster, "orders", 0..900).await;
}

#[tokio::test]
async fn a_producer_that_was_forgotten_goes_on() {
    for rule in [FirstSequence::Any, FirstSequence::Zero] {
        let cluster = FakeCluster::builder().first_sequence(rule).start().await.expect("a cluster");
        cluster.create_topic("orders", 2).expect("a topic");
        let sender = Sender::to(&cluster, "orders").await;
        for round in 0..3 {
            sender.send(round * 10..round * 10 + 10).await;
            cluster.forget_producers();
        }
        assert_exactly(&cluster, "orders", 0..30).await;
    }
}

#[tokio::test]
async fn a_topic_that_grows_or_is_created_again_is_written_on() {
    let cluster = cluster(1).await;
    let sender = Sender::to(&cluster, "orders").await;
    sender.send(0..100).await;
    cluster.add_partitions("orders", 12);
    sender.send(100..200).await;
    cluster.delete_topic("orders");
    cluster.create_topic("orders", 12).expect("it is gone");
    sender.send(200..300).await;
    assert_exactly(&cluster, "orders", 200..300).await;
}

#[tokio::test]
async fn a_delay_and_a_throttle_take_their_time() {
    const TIME: Duration = Duration::from_millis(100);
    let cluster = cluster(1).await;
    let sender = Sender::to(&cluster, "orders").await;
    sender.send(0..1).await;
    cluster.on(Api::Produce).delay(TIME);
    let began = Instant::now();
    sender.send(1..2).await;
    assert!(began.elapsed() >= TIME);
    cluster.on(Api::Produce).throttle(TIME);
    sender.send(2..3).await;
    let began = Instant::now();
    sender.send(3..4).await;
    assert!(began.elapsed() >= TIME / 2, "{:?}", began.elapsed());
}

/// Brokers refuse, deny and throttle between batches: a refused record costs the others nothing, and
/// what passes is tried again.
#[tokio::test]
async fn every_error_in_mid_stream_costs_the_other_records_nothing() {
    let refusals = [Code::InvalidRecord, Code::InvalidTimestamp, Code::PolicyViolation];
    let passing = [
        Code::MessageTooLarge,
        Code::PolicyViolation,
        Code::TopicAuthorizationFailed,
        Code::ThrottlingQuotaExceeded,
        Code::UnknownServerError,
    ];
    for rule in [FirstSequence::Any, FirstSequence::Zero] {
        let cluster = FakeCluster::builder().first_sequence(rule).start().await.expect("a cluster");
        cluster.create_topic("orders", 1).expect("a topic");
        let sender = Sender::to(&cluster, "orders").await;
        sender.send(0..10).await;
        let mut next = 10;
        for code in refusals {
            cluster.on(Api::Produce).after(2).refuse_records(code, "not here", &[0]);
        }
        for code in passing {
            cluster.on(Api::Produce).after(1).answer(code);
        }
        cluster.on(Api::Produce).throttle(Duration::from_millis(50));
        for _ in 0..40 {
            push(&sender.topic, next..next + 10, &sender.results);
            next += 10;
            // So that the records are in several requests.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        sender.results.reach(next as usize).await;
        sender.send(next..next + 10).await;
        next += 10;
        let refused = sender.results.refused();
        assert_eq!(refused.len(), refusals.len(), "{refused:?}");
        let read = crate::sending::read(&cluster, "orders", Isolation::ReadCommitted).await;
        let sound: Vec<_> = (0..next).filter(|number| !refused.contains_key(number)).collect();
        assert_eq!(read, [sound]);
    }
}
