//! Topics, their settings, and what a client reads.

use std::time::Duration;

use factlib_kafka::{
    Client, Code,
    client::{Isolation, NewTopic},
};
use factlib_testing::fake_broker::{Api, FakeCluster};
use tokio::time::timeout;

use crate::sending::{LIMIT, Sender, assert_exactly, settings};

#[tokio::test]
async fn topics_are_created_grown_described_and_deleted() {
    let cluster = FakeCluster::builder().brokers(3).start().await.expect("a cluster");
    let client = Client::new(settings(&cluster));
    let mut topic = NewTopic { name: "orders".into(), ..NewTopic::default() };
    topic.partitions = Some(4);
    topic.replication_factor = Some(3);
    topic.settings = vec![("max.message.bytes".into(), "5000".into())];
    client.create_topic(&topic, true).await.expect("allowed");
    assert_eq!(client.partitions("orders").await.expect("metadata"), None);
    client.create_topic(&topic, false).await.expect("created");
    let again = client.create_topic(&topic, false).await.expect_err("it exists");
    assert_eq!(again.code(), Some(Code::TopicAlreadyExists));

    client.add_partitions("orders", 5).await.expect("more");
    let partitions = client.partitions("orders").await.expect("metadata").expect("a topic");
    let leaders: Vec<_> = partitions.iter().map(|place| place.leader).collect();
    assert_eq!(leaders, [1, 2, 3, 1, 2].map(Some));
    assert!(partitions.iter().all(|place| place.in_sync.len() == 3));

    client.set_topic_setting("orders", "min.insync.replicas", "2").await.expect("changed");
    let names = ["max.message.bytes", "min.insync.replicas", "cleanup.policy"];
    let found = client.topic_settings("orders", &names).await.expect("settings");
    let value = |name| found.get(name).map(|s| (s.value.as_deref().unwrap_or(""), s.is_own));
    assert_eq!(value("max.message.bytes"), Some(("5000", true)));
    assert_eq!(value("min.insync.replicas"), Some(("2", true)));
    assert_eq!(value("cleanup.policy"), Some(("delete", false)));

    client.delete_topic("orders").await.expect("deleted");
    assert_eq!(client.partitions("orders").await.expect("metadata"), None);
}

#[tokio::test]
async fn a_fetch_waits_for_a_record_and_not_longer_than_it_is_told() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("orders", 1).expect("a topic");
    let client = Client::new(settings(&cluster));
    let fetch = |wait| client.fetch("orders", 0, 0, Isolation::ReadUncommitted, wait);
    let nothing = fetch(Duration::from_millis(10)).await.expect("an answer");
    assert_eq!((nothing.records.len(), nothing.end_offset), (0, 0));
    let sender = Sender::to(&cluster, "orders").await;
    let (fetched, ()) = tokio::join!(timeout(LIMIT, fetch(LIMIT)), sender.send(0..1));
    let record = &fetched.expect("in time").expect("an answer").records[0];
    assert_eq!((record.offset, record.timestamp_ms), (0, 1_000));
    let gone = client.fetch("orders", 0, 7, Isolation::ReadUncommitted, LIMIT).await;
    assert_eq!(gone.expect_err("behind the end").code(), Some(Code::OffsetOutOfRange));
}

#[tokio::test]
async fn old_batches_are_deleted_beyond_what_is_retained() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic_with("orders", 1, &[("retention.bytes", "500")]).expect("a topic");
    let sender = Sender::to(&cluster, "orders").await;
    for number in 0..20 {
        sender.send(number..number + 1).await;
    }
    let client = Client::new(settings(&cluster));
    let offsets = client.offsets("orders", 0, Isolation::ReadCommitted).await.expect("offsets");
    assert!(offsets.start > 10 && offsets.end == 20, "{offsets:?}");
    let start = u32::try_from(offsets.start).expect("a few");
    assert_exactly(&cluster, "orders", start..20).await;
}

#[tokio::test]
async fn a_broker_that_is_down_is_not_listed_and_its_partitions_have_no_leader() {
    let cluster = FakeCluster::builder().brokers(2).start().await.expect("a cluster");
    cluster.create_topic("orders", 2).expect("a topic");
    cluster.broker_down(1).await;
    let client = Client::new(settings(&cluster));
    let found = client.cluster(None).await.expect("metadata");
    assert_eq!(found.brokers.iter().map(|broker| broker.id).collect::<Vec<_>>(), [2]);
    let leaders = |partitions: Vec<factlib_kafka::client::PartitionPlaces>| {
        partitions.iter().map(|place| place.leader).collect::<Vec<_>>()
    };
    let partitions = found.topics["orders"].clone().expect("a topic");
    assert_eq!(leaders(partitions), [None, Some(2)]);
    cluster.move_leader("orders", 0, 2);
    let partitions = client.partitions("orders").await.expect("metadata").expect("a topic");
    assert_eq!(leaders(partitions), [Some(2), Some(2)]);
    assert_eq!(cluster.leader("orders", 0), Some(2));
    assert!(cluster.requests(Api::Metadata) >= 2);
}
