//! The client against brokers that behave as no real one can be made to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use factlib_kafka::{Client, Producer, Unobserved, client::Isolation};
use factlib_testing::fake_broker::{Api, Code, FakeCluster};
use tokio::time::timeout;

use crate::numbered::{LIMIT, Numbers, settings};

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
    numbers.send_during(tokio::time::sleep(Duration::from_secs(3))).await;
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
