//! Questions: topics, settings, offsets, records.

use std::time::Duration;

use factlib_kafka::{
    Client, Code,
    client::{Isolation, NewTopic},
};
use factlib_testing::shared_kafka;

use crate::numbered::{Numbers, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_described_grown_read_and_deleted() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let client = Client::new(settings(&bootstrap));
    let new = NewTopic {
        name: "asked".into(),
        partitions: Some(2),
        replication_factor: None,
        settings: vec![("max.message.bytes".into(), "5000".into())],
    };
    client.create_topic(&new, true).await.expect("it would be made");
    assert_eq!(client.partitions("asked").await.expect("an answer"), None);
    client.create_topic(&new, false).await.expect("it is made");
    let again = client.create_topic(&new, false).await.expect_err("it is there");
    assert_eq!(again.code(), Some(Code::TopicAlreadyExists));
    let partitions = loop {
        // The broker may hear of it a little later.
        if let Some(partitions) = client.partitions("asked").await.expect("an answer") {
            break partitions;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(partitions.len(), 2);

    let names = ["max.message.bytes", "min.insync.replicas"];
    let known = client.topic_settings("asked", &names).await.expect("settings");
    let of = |name: &str| (known[name].value.as_deref(), known[name].is_own);
    assert_eq!(of("max.message.bytes"), (Some("5000"), true));
    assert_eq!(of("min.insync.replicas"), (Some("1"), false));
    client.set_topic_setting("asked", "max.message.bytes", "6000").await.expect("a change");
    // The controller has the change; the broker that is asked hears of it a little later.
    loop {
        let known = client.topic_settings("asked", &names[..1]).await.expect("settings");
        match known["max.message.bytes"].value.as_deref() {
            Some("6000") => break,
            before => assert_eq!(before, Some("5000")),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let mut numbers = Numbers::to(&bootstrap, "asked").await;
    numbers.send(500);
    numbers.ended().await;
    let mut read = 0;
    for partition in 0..2 {
        let offsets = client.offsets("asked", partition, Isolation::ReadCommitted).await;
        let offsets = offsets.expect("offsets");
        let mut next = offsets.start;
        while next < offsets.end {
            let wait = Duration::from_millis(100);
            let fetched =
                client.fetch("asked", partition, next, Isolation::ReadCommitted, wait).await;
            let fetched = fetched.expect("records");
            assert_eq!(fetched.records[0].offset, next);
            assert_eq!(fetched.records[0].headers[0].0, "number");
            read += fetched.records.len();
            next = fetched.next_offset;
        }
        let nothing = client
            .fetch("asked", partition, next, Isolation::ReadCommitted, Duration::ZERO)
            .await
            .expect("an answer");
        assert!(nothing.records.is_empty() && nothing.next_offset == next);
        let beyond =
            client.fetch("asked", partition, next + 1, Isolation::ReadCommitted, Duration::ZERO);
        let beyond = beyond.await.expect_err("there is no such offset");
        assert_eq!(beyond.code(), Some(Code::OffsetOutOfRange));
    }
    assert_eq!(read, 500);
    client.delete_topic("asked").await.expect("it is deleted");
    let missing = loop {
        match client.offsets("asked", 0, Isolation::ReadCommitted).await {
            // The broker may hear of it a little later.
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(missing.code(), Some(Code::UnknownTopicOrPartition));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_tells_its_brokers_and_topics() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let client = Client::new(settings(&bootstrap));
    let cluster = client.cluster(Some(&["no such topic"])).await.expect("a cluster");
    assert!(cluster.id.is_some());
    let [broker] = &cluster.brokers[..] else { panic!("{:?}", cluster.brokers) };
    assert_eq!(format!("{}:{}", broker.host, broker.port), bootstrap);
    let missing = cluster.topics["no such topic"].as_ref().expect_err("no topic");
    assert_eq!(missing.code(), Some(Code::InvalidTopicException));
}
