//! Records arrive once and in order, whatever topics do meanwhile.

use std::{sync::Arc, time::Duration};

use factlib_kafka::{Client, Compression, Producer, Unobserved, client::NewTopic};
use factlib_testing::{KafkaServer, create_topic, shared_kafka};
use tokio::time::{sleep, timeout};

use crate::numbered::{Numbers, assert_exactly, eventually, numbers_in, settings};

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_get_each_record_once_and_in_order() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "many", 24, &[]).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "many").await;
    for _ in 0..200 {
        numbers.send(250);
        tokio::task::yield_now().await;
    }
    numbers.ended().await;
    assert_exactly(&bootstrap, "many", 0..numbers.sent).await;
    assert_eq!(numbers_in(&bootstrap, "many").await.len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_opened_while_another_one_is_looked_up_does_not_wait() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let names = ["opened-first", "opened-second", "opened-third"];
    for name in names {
        create_topic(&bootstrap, name, 1, &[]).await.expect("a topic");
    }
    // Each time another moment of the first look-up.
    for pause_ms in [0, 1, 2, 5, 10, 20, 50] {
        let (producer, driver) = Producer::new(settings(&bootstrap), Arc::new(Unobserved));
        tokio::spawn(driver);
        let opening = names.into_iter().enumerate().map(|(place, name)| {
            let producer = producer.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(place as u64 * pause_ms)).await;
                producer.topic(name).await.expect("a topic")
            })
        });
        for opened in opening.collect::<Vec<_>>() {
            let opened = timeout(Duration::from_secs(5), opened).await;
            opened.expect("it is not forgotten").expect("no panic");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_read_every_codec() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    for compression in Compression::ALL {
        let topic = format!("codec-{compression:?}");
        create_topic(&bootstrap, &topic, 1, &[]).await.expect("a topic");
        let mut settings = settings(&bootstrap);
        settings.compression = compression;
        let mut numbers = Numbers::with(settings, &topic).await;
        numbers.send(1_000);
        numbers.ended().await;
        assert_exactly(&bootstrap, &topic, 0..1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_kafkas_are_spoken_to_in_their_versions() {
    for builder in [KafkaServer::builder().before_4(), KafkaServer::builder().before_3()] {
        let kafka = builder.start().await.expect("a Kafka");
        let bootstrap = kafka.bootstrap();
        create_topic(&bootstrap, "old", 6, &[]).await.expect("a topic");
        let mut numbers = Numbers::to(&bootstrap, "old").await;
        numbers.send(5_000);
        numbers.ended().await;
        assert_exactly(&bootstrap, "old", 0..5_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_under_load_are_used() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "growing", 2, &[]).await.expect("a topic");
    let mut settings = settings(&bootstrap);
    settings.metadata_max_age = Duration::from_millis(100);
    let client = Client::new(settings.clone());
    let mut numbers = Numbers::with(settings, "growing").await;
    let heard = Arc::clone(&numbers.heard);
    let growing = async {
        client.add_partitions("growing", 6).await.expect("they are added");
        heard.says("growing has 6 partitions and not 2").await;
        sleep(Duration::from_millis(200)).await;
    };
    numbers.send_during(growing).await;
    numbers.ended().await;
    assert_exactly(&bootstrap, "growing", 0..numbers.sent).await;
    assert_eq!(numbers_in(&bootstrap, "growing").await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_made_again_flows_on() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "again", 6, &[]).await.expect("a topic");
    let client = Client::new(settings(&bootstrap));
    let mut numbers = Numbers::to(&bootstrap, "again").await;
    let heard = Arc::clone(&numbers.heard);
    let deleting = async {
        sleep(Duration::from_millis(100)).await;
        client.delete_topic("again").await.expect("it is deleted");
        heard.has_trouble("UNKNOWN_TOPIC_OR_PARTITION").await;
        create_topic(&bootstrap, "again", 6, &[]).await.expect("a topic");
    };
    numbers.send_during(deleting).await;
    let before = numbers.sent;
    for _ in 0..20 {
        numbers.send(100);
        sleep(Duration::from_millis(5)).await;
    }
    numbers.ended().await;
    for (partition, numbers) in numbers_in(&bootstrap, "again").await {
        let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
        assert!(wrong.is_none(), "{wrong:?} in partition {partition}");
    }
    let found = numbers_in(&bootstrap, "again").await.into_values().flatten();
    assert_eq!(found.filter(|number| *number >= before).count(), 2_000);
    numbers.heard.says("recovered again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_with_fewer_partitions_is_closed() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "fewer", 6, &[]).await.expect("a topic");
    let mut settings = settings(&bootstrap);
    settings.metadata_max_age = Duration::from_millis(100);
    let client = Client::new(settings.clone());
    let mut numbers = Numbers::with(settings, "fewer").await;
    numbers.send(100);
    numbers.ended().await;
    client.delete_topic("fewer").await.expect("it is deleted");
    numbers.heard.has_trouble("UNKNOWN_TOPIC_OR_PARTITION").await;
    let partitions = Some(2);
    let new = NewTopic { name: "fewer".into(), partitions, ..NewTopic::default() };
    client.create_topic(&new, false).await.expect("it is made again");
    eventually("the topic is closed", || numbers.topic.is_closed()).await;
    numbers.topic = numbers.producer.topic("fewer").await.expect("a topic");
    numbers.send(100);
    numbers.ended().await;
    assert_exactly(&bootstrap, "fewer", 100..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_topic_has_nothing_on_its_way_and_another_one_comes_behind_it() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "closed", 6, &[]).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "closed").await;
    for _ in 0..5 {
        numbers.send(2_000);
        numbers.producer.close(&numbers.topic).await;
        // What has not ended by now never will, and is sent again.
        let ended = numbers.ends.count() as u32;
        assert_eq!(std::sync::Arc::strong_count(&numbers.ends), 1, "receipts are dropped");
        tokio::task::yield_now().await;
        assert_eq!(numbers.ends.count() as u32, ended);
        numbers.topic = numbers.producer.topic("closed").await.expect("a topic");
    }
    let found = numbers_in(&bootstrap, "closed").await;
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), numbers.ends.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_the_broker_forgot_goes_on() {
    let forgets =
        [("producer.id.expiration.ms", "500"), ("producer.id.expiration.check.interval.ms", "200")];
    let mut builder = KafkaServer::builder();
    for (name, value) in forgets {
        builder = builder.property(name, value);
    }
    let kafka = builder.start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "forgotten", 6, &[]).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "forgotten").await;
    for _ in 0..3 {
        for _ in 0..20 {
            numbers.send(100);
            tokio::task::yield_now().await;
        }
        numbers.ended().await;
        // The broker tells nobody that it forgot.
        sleep(Duration::from_secs(2)).await;
    }
    assert_exactly(&bootstrap, "forgotten", 0..numbers.sent).await;
}
