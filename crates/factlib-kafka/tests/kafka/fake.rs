//! The client against brokers that behave as no real one can be made to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use factlib_kafka::{
    Client, Error, Producer, TransactionError, Transactional, TransactionalProducer, Unobserved,
    client::Isolation,
};
use factlib_testing::fake_broker::{Api, Code, FakeCluster};
use tokio::time::{sleep, timeout};

use crate::numbered::{Ends, Heard, LIMIT, Numbers, push, settings};

#[tokio::test(flavor = "multi_thread")]
async fn another_broker_is_asked_where_one_does_not_know_a_topic() {
    let cluster = FakeCluster::builder().brokers(2).start().await.expect("a cluster");
    cluster.create_topic("known", 1).expect("a topic");
    for broker in [1, 2] {
        let stale = cluster.on(Api::Metadata).broker(broker).topic("known").always();
        let stale = stale.answer(Code::UnknownTopicOrPartition);
        let began = Instant::now();
        let mut numbers = Numbers::to(&cluster.bootstrap(), "known").await;
        numbers.send(10);
        numbers.ended().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        stale.lift();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_broker_is_asked_where_one_does_not_know_the_leader() {
    let cluster = FakeCluster::builder().brokers(2).start().await.expect("a cluster");
    cluster.create_topic("moved", 1).expect("a topic");
    let mut numbers = Numbers::to(&cluster.bootstrap(), "moved").await;
    numbers.send(10);
    numbers.ended().await;
    for (stale, leader) in [(1, 2), (2, 1), (1, 2)] {
        let stale = cluster.on(Api::Metadata).broker(stale).topic("moved").always();
        let stale = stale.answer(Code::LeaderNotAvailable);
        cluster.move_leader("moved", 0, leader);
        numbers.send(10);
        numbers.ended().await;
        stale.lift();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_another_broker_where_one_does_not_know_the_leader() {
    let cluster = FakeCluster::builder().brokers(2).start().await.expect("a cluster");
    cluster.create_topic("read", 1).expect("a topic");
    for broker in [1, 2] {
        let stale = cluster.on(Api::Metadata).broker(broker).topic("read").always();
        let stale = stale.answer(Code::LeaderNotAvailable);
        let client = Client::new(settings(&cluster.bootstrap()));
        client.offsets("read", 0, Isolation::ReadUncommitted).await.expect("offsets");
        stale.lift();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_requested_at_growing_intervals_while_many_partitions_fail() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("many", 50).expect("a topic");
    let mut numbers = Numbers::to(&cluster.bootstrap(), "many").await;
    let refused = cluster.on(Api::Produce).topic("many").always();
    let refused = refused.answer(Code::NotLeaderOrFollower);
    let before = cluster.requests(Api::Metadata);
    numbers.send_during(sleep(Duration::from_secs(3))).await;
    let requests = cluster.requests(Api::Metadata) - before;
    assert!((3..=15).contains(&requests), "{requests}");
    refused.lift();
    numbers.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_opened_and_closed_at_once_is_opened_all_the_same() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("both", 1).expect("a topic");
    let (producer, driver) = Producer::new(settings(&cluster.bootstrap()), Arc::new(Unobserved));
    tokio::spawn(driver);
    let mut topic = producer.topic("both").await.expect("a topic");
    for _ in 0..20 {
        let opening = timeout(LIMIT, producer.topic("both"));
        let (opened, ()) = tokio::join!(opening, producer.close(&topic));
        topic = opened.expect("it is not forgotten").expect("a topic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_previous_transaction_that_does_not_end_is_reported_and_asked_after_ever_more_rarely() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    let begin = |heard: &Arc<Heard>| {
        let transactional = Transactional { id: "stuck".into(), timeout: LIMIT };
        let (producer, driver) = TransactionalProducer::new(
            settings(&cluster.bootstrap()),
            transactional,
            Arc::clone(heard) as _,
        );
        tokio::spawn(driver);
        async move { timeout(LIMIT, producer.begin()).await.expect("in time").expect("it begins") }
    };
    let heard = Arc::new(Heard::default());
    let stuck = cluster.on(Api::InitProducerId).always().answer(Code::ConcurrentTransactions);
    let beginning = tokio::spawn(begin(&heard));
    heard.has_trouble("has not ended the previous transaction").await;
    assert!(heard.trouble()[0].contains("CONCURRENT_TRANSACTIONS"), "{:?}", heard.trouble());
    let before = cluster.requests(Api::InitProducerId);
    sleep(Duration::from_secs(2)).await;
    let requests = cluster.requests(Api::InitProducerId) - before;
    assert!((4..=20).contains(&requests), "{requests}");
    stuck.lift();
    beginning.await.expect("no panic");
    // A transaction that ends soon is no trouble.
    let heard = Arc::new(Heard::default());
    cluster.on(Api::InitProducerId).times(20).answer(Code::ConcurrentTransactions);
    begin(&heard).await;
    assert_eq!(heard.trouble(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_connection_is_waited_for_and_reported() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("throttled", 1).expect("a topic");
    let mut settings = settings(&cluster.bootstrap());
    settings.request_timeout = Duration::from_secs(1);
    let mut numbers = Numbers::with(settings, "throttled").await;
    numbers.send(10);
    numbers.ended().await;
    // The second request is answered with the throttle, and the third one waits behind it.
    cluster.on(Api::Produce).delay(Duration::from_millis(300));
    cluster.on(Api::Produce).throttle(Duration::from_secs(3));
    let began = Instant::now();
    for _ in 0..3 {
        numbers.send(10);
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(500)).await;
    numbers.send(10);
    numbers.ended().await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(numbers.heard.count("disconnected"), 0, "{:?}", numbers.heard.trouble());
    numbers.heard.has_trouble("throttles this client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_too_old_for_transactions_refuses_them() {
    for newest in [-1, 2] {
        let cluster = FakeCluster::builder().newest_version(Api::InitProducerId, newest);
        let cluster = cluster.start().await.expect("a cluster");
        let transactional = Transactional { id: "old".into(), timeout: LIMIT };
        let (producer, driver) = TransactionalProducer::new(
            settings(&cluster.bootstrap()),
            transactional,
            Arc::new(Unobserved),
        );
        tokio::spawn(driver);
        let error = timeout(LIMIT, producer.begin()).await.expect("in time").expect_err("too old");
        let TransactionError::Refused(Error::Unsupported { what, .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(what.contains("InitProducerId"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_delays_no_other() {
    let cluster = FakeCluster::builder().brokers(2).start().await.expect("a cluster");
    for (topic, leader) in [("hung", 1), ("alive", 2)] {
        cluster.create_topic(topic, 1).expect("a topic");
        cluster.move_leader(topic, 0, leader);
    }
    let mut numbers = Numbers::to(&cluster.bootstrap(), "hung").await;
    let alive = numbers.producer.topic("alive").await.expect("a topic");
    numbers.send(10);
    numbers.ended().await;
    cluster.on(Api::Produce).broker(1).delay(Duration::from_secs(3));
    let began = Instant::now();
    numbers.send(10);
    for round in 0..10 {
        let ends = Arc::<Ends>::default();
        push(&alive, round * 10..round * 10 + 10, &ends);
        ends.reach(10).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    numbers.ended().await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_no_bytes_is_given_up_long_before_the_request_times_out() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("gone", 1).expect("a topic");
    let mut settings = settings(&cluster.bootstrap());
    settings.request_timeout = LIMIT * 2;
    let mut numbers = Numbers::with(settings, "gone").await;
    numbers.send(10);
    numbers.ended().await;
    // The broker reads nothing from this connection until it is gone.
    cluster.on(Api::Produce).delay(LIMIT * 2);
    let began = Instant::now();
    // More than the sockets hold.
    for _ in 0..60 {
        numbers.send(2_000);
        sleep(Duration::from_millis(5)).await;
    }
    numbers.heard.says("disconnected").await;
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    numbers.ended().await;
}
