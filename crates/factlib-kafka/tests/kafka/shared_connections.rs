//! Clients that take turns to use their connections.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use factlib_kafka::{
    Client, Connecting, Connector, Plaintext, Producer, Settings, Stream, Topic, client::Isolation,
};
use factlib_testing::{
    KafkaServer, create_topic,
    fake_broker::{Api, FakeCluster},
    shared_kafka,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::numbered::{Ends, Heard, LIMIT, Numbers, assert_exactly, eventually, push, settings};

/// Counts connections.
#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    attempts: AtomicUsize,
    open: AtomicUsize,
    refuses: std::sync::atomic::AtomicBool,
}

impl Counting {
    fn attempts(&self) -> usize {
        self.0.attempts.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    fn settings(&self, bootstrap: &str) -> Settings {
        let mut settings = settings(bootstrap);
        settings.connector = Arc::new(self.clone());
        settings
    }
}

impl Connector for Counting {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            self.0.attempts.fetch_add(1, Ordering::SeqCst);
            if self.0.refuses.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(100)).await;
                return Err(io::Error::other("not today"));
            }
            let stream = Plaintext.connect(host, port).await?;
            self.0.open.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Counted(stream, Arc::clone(&self.0))) as Box<dyn Stream>)
        })
    }
}

struct Counted(Box<dyn Stream>, Arc<Counts>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A producer whose driver a test can end.
async fn producer(settings: &Settings, topic: &str) -> (Producer, Topic, JoinHandle<()>) {
    let (producer, driver) = Producer::new(settings.clone(), Arc::<Heard>::default());
    let driver = tokio::spawn(driver);
    let topic = timeout(LIMIT, producer.topic(topic)).await.expect("in time").expect("a topic");
    (producer, topic, driver)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_in_turn_need_few_connections() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("turns", 3).expect("a topic");
    let counting = Counting::default();
    let settings = counting.settings(&cluster.bootstrap());
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(Numbers::with(settings.clone(), "turns").await);
    }
    let client = Client::new(settings.clone());
    for _ in 0..3 {
        for numbers in &mut all {
            numbers.send(10);
            numbers.ended().await;
        }
        client.offsets("turns", 0, Isolation::ReadUncommitted).await.expect("offsets");
    }
    // A driver tells of an answer shortly before it puts its connection back.
    assert!(counting.attempts() <= 4, "{}", counting.attempts());
    assert!(all.iter().all(|numbers| numbers.heard.count("connected") == 1));
    assert!(all.iter().all(|numbers| numbers.heard.count("disconnected") == 0));
    drop((all, client, settings));
    eventually("nothing is left", || counting.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_differ_share_nothing() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    let counting = Counting::default();
    let same = counting.settings(&cluster.bootstrap());
    let ask = async |settings: &Settings| {
        Client::new(settings.clone()).cluster(None).await.expect("an answer");
        counting.attempts()
    };
    assert_eq!((ask(&same).await, ask(&same).await), (1, 1));
    let mut other = same.clone();
    other.client_id = "another".into();
    assert_eq!((ask(&other).await, ask(&same).await, ask(&other).await), (2, 2, 2));
    let mut other = same.clone();
    other.request_timeout *= 2;
    assert_eq!(ask(&other).await, 3);
    let mut other = same.clone();
    other.connector = Arc::new(counting.clone());
    assert_eq!(ask(&other).await, 4);
    let mut other = same.clone();
    other.connections = Arc::default();
    assert_eq!((ask(&other).await, ask(&same).await), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_that_start_together_open_few_connections_and_close_the_spare_ones() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    let counting = Counting::default();
    let settings = counting.settings(&cluster.bootstrap());
    let clients: Vec<_> = (0..200).map(|_| Client::new(settings.clone())).collect();
    let asking = clients.iter().map(|client| client.cluster(None));
    let answers = futures_util::future::join_all(asking).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(counting.attempts() < 20, "{}", counting.attempts());
    sleep(Duration::from_secs(11)).await;
    clients[0].cluster(None).await.expect("an answer");
    eventually("one is left", || counting.open() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_fails_for_all_who_wait_for_it() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    let counting = Counting::default();
    counting.0.refuses.store(true, Ordering::SeqCst);
    let settings = counting.settings(&cluster.bootstrap());
    let began = Instant::now();
    let clients: Vec<_> = (0..100).map(|_| Client::new(settings.clone())).collect();
    let asking = clients.iter().map(|client| client.cluster(None));
    for answer in futures_util::future::join_all(asking).await {
        let error = answer.expect_err("it is refused").to_string();
        assert!(error.ends_with("not today"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(counting.attempts() < 10, "{}", counting.attempts());
    counting.0.refuses.store(false, Ordering::SeqCst);
    clients[99].cluster(None).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_stops_waiting_holds_up_nobody() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    let slow = cluster.on(Api::ApiVersions).always().delay(Duration::from_secs(1));
    let settings = Counting::default().settings(&cluster.bootstrap());
    let ask = |limit: Duration| {
        let client = Client::new(settings.clone());
        tokio::spawn(async move { timeout(limit, client.cluster(None)).await.is_ok() })
    };
    // The first two open connections. They give up, and so do all others but the last.
    let mut given_up = Vec::new();
    for _ in 0..10 {
        given_up.push(ask(Duration::from_millis(100)));
        sleep(Duration::from_millis(5)).await;
    }
    let last = ask(LIMIT);
    for given_up in given_up {
        assert!(!given_up.await.expect("no panic"));
    }
    slow.lift();
    assert!(timeout(Duration::from_secs(3), last).await.expect("in time").expect("no panic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_answers_to_another() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    for topic in ["slow", "quick"] {
        cluster.create_topic(topic, 1).expect("a topic");
    }
    let counting = Counting::default();
    let settings = counting.settings(&cluster.bootstrap());
    let mut slow = Numbers::with(settings.clone(), "slow").await;
    let mut quick = Numbers::with(settings.clone(), "quick").await;
    for numbers in [&mut slow, &mut quick] {
        numbers.send(10);
        numbers.ended().await;
    }
    cluster.on(Api::Produce).topic("slow").delay(Duration::from_secs(3));
    let began = Instant::now();
    slow.send(10);
    sleep(Duration::from_millis(50)).await;
    for _ in 0..20 {
        quick.send(10);
        quick.ended().await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    slow.ended().await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(counting.attempts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_connection_is_left_to_the_one_who_is_throttled() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    for topic in ["greedy", "modest"] {
        cluster.create_topic(topic, 1).expect("a topic");
    }
    let settings = settings(&cluster.bootstrap());
    let mut greedy = Numbers::with(settings.clone(), "greedy").await;
    let mut modest = Numbers::with(settings.clone(), "modest").await;
    cluster.on(Api::Produce).topic("greedy").throttle(Duration::from_secs(3));
    let began = Instant::now();
    greedy.send(10);
    greedy.ended().await;
    modest.send(10);
    modest.ended().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    greedy.send(10);
    greedy.ended().await;
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_is_dropped_with_requests_in_flight_leaves_no_connection_behind() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    for topic in ["dropped", "stays"] {
        cluster.create_topic(topic, 1).expect("a topic");
    }
    let counting = Counting::default();
    let settings = counting.settings(&cluster.bootstrap());
    let mut stays = Numbers::with(settings.clone(), "stays").await;
    let (_producer, topic, driver) = producer(&settings, "dropped").await;
    let before = cluster.requests(Api::Produce);
    cluster.on(Api::Produce).topic("dropped").delay(Duration::from_secs(3));
    push(&topic, 0..10, &Arc::<Ends>::default());
    eventually("it is sent", || cluster.requests(Api::Produce) > before).await;
    driver.abort();
    let began = Instant::now();
    stays.send_during(sleep(Duration::from_secs(1))).await;
    stays.ended().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // It is closed with the answer.
    let with_it = counting.open();
    eventually("it is closed", || counting.open() < with_it).await;
    assert_eq!(stays.heard.trouble(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_die_under_several_producers_lose_and_repeat_nothing() {
    let kafka = KafkaServer::builder().proxied().start().await.expect("a Kafka");
    let (bootstrap, admin) = (kafka.bootstrap(), kafka.admin_bootstrap());
    let topics = ["first", "second", "third"];
    let counting = Counting::default();
    let settings = counting.settings(&bootstrap);
    let mut all = Vec::new();
    for topic in topics {
        create_topic(&admin, topic, 4, &[]).await.expect("a topic");
        all.push(Numbers::with(settings.clone(), topic).await);
    }
    let client = Client::new(settings.clone());
    let network = kafka.proxy(1).expect("a proxy");
    for round in 0..6 {
        for _ in 0..30 {
            for numbers in &mut all {
                numbers.send(50);
            }
            sleep(Duration::from_millis(2)).await;
        }
        // Those in use, and in between those that nobody uses.
        if round % 2 == 1 {
            for numbers in &all {
                numbers.ended().await;
            }
        }
        network.reset_all();
        let _ = client.partitions("first").await;
    }
    for (numbers, topic) in all.iter().zip(topics) {
        numbers.ended().await;
        assert_exactly(&admin, topic, 0..numbers.sent).await;
    }
    client.partitions("first").await.expect("an answer");
    assert!(counting.open() <= topics.len() + 1, "{}", counting.open());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_a_broker_that_went_silent_are_given_up_together() {
    let kafka = KafkaServer::builder().proxied().start().await.expect("a Kafka");
    let (bootstrap, admin) = (kafka.bootstrap(), kafka.admin_bootstrap());
    create_topic(&admin, "silent", 1, &[]).await.expect("a topic");
    let counting = Counting::default();
    let mut settings = counting.settings(&bootstrap);
    settings.request_timeout = Duration::from_secs(3);
    let mut numbers = Numbers::with(settings.clone(), "silent").await;
    numbers.send(10);
    numbers.ended().await;
    // Several at once, so that several connections are idle afterwards.
    let network = kafka.proxy(1).expect("a proxy");
    network.latency(Duration::from_millis(100));
    let clients: Vec<_> = (0..10).map(|_| Client::new(settings.clone())).collect();
    let asking = clients.iter().map(|client| client.cluster(None));
    assert!(futures_util::future::join_all(asking).await.iter().all(Result::is_ok));
    network.latency(Duration::ZERO);
    assert!(counting.open() > 2, "{}", counting.open());
    network.half_open();
    let began = Instant::now();
    numbers.send(10);
    sleep(Duration::from_millis(200)).await;
    // From now on, new connections work.
    network.resume();
    numbers.ended().await;
    // One request timed out, and not one for each.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_exactly(&admin, "silent", 0..20).await;
}

/// Measures the latency of a light producer beside a heavy one: on connections of its own, on
/// connections that both take turns to use, and on the connections of the heavy one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and measures: see docs/fleet.md"]
async fn latency_of_a_light_producer_beside_a_heavy_one() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    for topic in ["heavy", "light"] {
        create_topic(&bootstrap, topic, 12, &[]).await.expect("a topic");
    }
    for round in 0..3 {
        for (name, is_shared, is_same) in [
            ("a producer with connections of its own", false, false),
            ("a producer that takes turns", true, false),
            ("one connection for both", true, true),
        ] {
            let settings = settings(&bootstrap);
            let mut heavy = Numbers::with(settings.clone(), "heavy").await;
            let mut other = settings.clone();
            if !is_shared {
                other.connections = Arc::default();
            }
            let light = Numbers::with(other, "light").await;
            let topic = match is_same {
                true => heavy.producer.topic("light").await.expect("a topic"),
                false => light.topic.clone(),
            };
            let measuring = async {
                let mut took = Vec::new();
                for number in 0..300 {
                    let (ends, began) = (Arc::<Ends>::default(), Instant::now());
                    push(&topic, number..number + 1, &ends);
                    ends.reach(1).await;
                    took.push(began.elapsed());
                    sleep(Duration::from_millis(20)).await;
                }
                took.sort_unstable();
                took
            };
            let mut measuring = std::pin::pin!(measuring);
            let took = loop {
                tokio::select! {
                    took = &mut measuring => break took,
                    () = sleep(Duration::from_millis(5)) => {
                        // As much as it gets rid of.
                        while (heavy.sent as usize) < heavy.ends.count() + 50_000 {
                            heavy.send(1_000);
                        }
                    }
                }
            };
            heavy.ended().await;
            let ms = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1000.0;
            println!(
                "{round}: {name}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms; {} heavy records",
                ms(50),
                ms(90),
                ms(99),
                heavy.sent
            );
        }
    }
}
