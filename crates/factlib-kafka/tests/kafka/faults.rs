//! Brokers that die, move, hang, or are not there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use factlib_kafka::Client;
use factlib_testing::{KafkaServer, create_topic, shared_kafka};
use tokio::time::sleep;

use crate::numbered::{Numbers, assert_exactly, eventually, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_started_again_loses_and_repeats_nothing() {
    let kafka = KafkaServer::start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "killed", 12, &[]).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "killed").await;
    let (heard, ends) = (Arc::clone(&numbers.heard), Arc::clone(&numbers.ends));
    for round in 1..=2 {
        let killing = async {
            // Records flow, and flow again.
            let before = ends.count();
            let flows = || heard.count("connected") >= round && ends.count() > before + 1_000;
            eventually("records flow", flows).await;
            kafka.kill(1).await.expect("it is killed");
            sleep(Duration::from_millis(500)).await;
            kafka.start_again(1).await.expect("it is back");
        };
        numbers.send_during(killing).await;
    }
    let back = Instant::now();
    numbers.ended().await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    assert_exactly(&bootstrap, "killed", 0..numbers.sent).await;
    let disconnects = numbers.heard.count("disconnected");
    assert!(disconnects >= 2, "{disconnects}, {:?}", numbers.heard.trouble());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_move_lose_and_repeat_nothing() {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    let few = [("min.insync.replicas", "2")];
    create_topic(&bootstrap, "moved", 12, &few).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "moved").await;
    for broker in 1..=3 {
        let moving = async {
            sleep(Duration::from_millis(300)).await;
            kafka.kill(broker).await.expect("it is killed");
            sleep(Duration::from_secs(1)).await;
            kafka.start_again(broker).await.expect("it is back");
            // The next one may go only when this one has everything.
            let client = Client::new(settings(&bootstrap));
            loop {
                let known = client.partitions("moved").await.expect("metadata").expect("a topic");
                if known.iter().all(|places| places.in_sync.len() == 3) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        numbers.send_during(moving).await;
    }
    numbers.ended().await;
    assert_exactly(&bootstrap, "moved", 0..numbers.sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_found() {
    let kafka = KafkaServer::builder().proxied().start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "silent", 3, &[]).await.expect("a topic");
    let mut settings = settings(&bootstrap);
    settings.request_timeout = Duration::from_secs(2);
    let mut numbers = Numbers::with(settings, "silent").await;
    numbers.send(100);
    numbers.ended().await;
    let network = kafka.proxy(1).expect("a proxy");
    network.half_open();
    // More than the sockets hold, so that writing hangs as well.
    for _ in 0..40 {
        numbers.send(2_000);
        sleep(Duration::from_millis(5)).await;
    }
    let silent = Instant::now();
    sleep(Duration::from_millis(200)).await;
    // From now on, new connections work; those that lost bytes stay dead.
    network.resume();
    numbers.ended().await;
    assert!(silent.elapsed() < Duration::from_secs(6), "{:?}", silent.elapsed());
    numbers.heard.has_trouble("does not answer Produce").await;
    assert_exactly(&kafka.admin_bootstrap(), "silent", 0..numbers.sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_is_waited_for() {
    let kafka = KafkaServer::start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "hanging", 3, &[]).await.expect("a topic");
    let mut settings = settings(&bootstrap);
    settings.request_timeout = Duration::from_secs(1);
    let mut numbers = Numbers::with(settings, "hanging").await;
    numbers.send(100);
    kafka.pause(1).expect("it is paused");
    let waiting = async {
        sleep(Duration::from_secs(4)).await;
        kafka.resume(1).expect("it goes on");
    };
    numbers.send_during(waiting).await;
    numbers.ended().await;
    assert_exactly(&bootstrap, "hanging", 0..numbers.sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_brokers_may_be_dead() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "bootstrap", 1, &[]).await.expect("a topic");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address");
    let all = format!("127.0.0.1:1,nowhere.invalid:9092,{silent},{bootstrap}");
    let began = Instant::now();
    let mut numbers = Numbers::to(&all, "bootstrap").await;
    numbers.send(10);
    numbers.ended().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_for_the_first_broker_and_flow_soon_after_it_is_there() {
    let kafka = KafkaServer::start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "early", 3, &[]).await.expect("a topic");
    kafka.kill(1).await.expect("it is killed");
    let heard = Arc::new(crate::numbered::Heard::default());
    let (producer, driver) =
        factlib_kafka::Producer::new(settings(&bootstrap), Arc::clone(&heard) as _);
    tokio::spawn(driver);
    let opening = tokio::spawn(async move { producer.topic("early").await });
    heard.has_trouble("refused").await;
    kafka.start_again(1).await.expect("it is back");
    let began = Instant::now();
    opening.await.expect("no panic").expect("a topic");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
