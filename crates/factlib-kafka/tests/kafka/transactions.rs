//! Transactions against a real broker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use factlib_kafka::{
    Receipt, Settings, Topic, TransactionError, Transactional, TransactionalProducer,
    record_batch::Record, sasl::Plain,
};
use factlib_testing::{
    KafkaServer, TopicRight, create_topic, grant, grant_transactions, read_topic, shared_kafka,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::numbered::{Ends, Heard, LIMIT, assert_exactly, now_ms, push, settings};

struct Transacting {
    producer: TransactionalProducer,
    ends: Arc<Ends>,
}

impl Transacting {
    async fn begin(settings: Settings, id: &str, limit: Duration) -> Self {
        let transactional = Transactional { id: id.into(), timeout: limit };
        let (producer, driver) =
            TransactionalProducer::new(settings, transactional, Arc::new(Heard::default()));
        tokio::spawn(driver);
        let begun = timeout(LIMIT, producer.begin()).await.expect("in time");
        begun.expect("it begins");
        Transacting { producer, ends: Arc::default() }
    }

    async fn topic(&self, topic: &str) -> Topic {
        self.producer.topic(topic).await.expect("a topic")
    }

    async fn commit(&self) -> Result<(), TransactionError> {
        let sealed = self.producer.seal();
        timeout(LIMIT, self.producer.commit(sealed)).await.expect("in time")
    }

    async fn abort(&self) -> Result<(), TransactionError> {
        timeout(LIMIT, self.producer.abort()).await.expect("in time")
    }
}

const MINUTE: Duration = Duration::from_secs(60);

async fn many_are_committed_while_the_next_is_prepared(bootstrap: &str) {
    create_topic(bootstrap, "overlapping", 6, &[]).await.expect("a topic");
    let all = Transacting::begin(settings(bootstrap), "overlapping", MINUTE).await;
    let topic = all.topic("overlapping").await;
    let mut committing: Option<JoinHandle<Result<(), TransactionError>>> = None;
    for round in 0..20 {
        push(&topic, round * 100..round * 100 + 100, &all.ends);
        let sealed = all.producer.seal();
        if let Some(before) = committing.take() {
            before.await.expect("no panic").expect("a commit");
        }
        let producer = all.producer.clone();
        committing = Some(tokio::spawn(async move { producer.commit(sealed).await }));
    }
    committing.expect("one").await.expect("no panic").expect("a commit");
    all.ends.reach(2_000).await;
    assert_exactly(bootstrap, "overlapping", 0..2_000).await;
    all.commit().await.expect("one without records");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_transaction_is_prepared_while_one_is_committed() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    many_are_committed_while_the_next_is_prepared(&bootstrap).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_commit_everything_once_on_common_connections_that_die() {
    let kafka = KafkaServer::builder().proxied().start().await.expect("a Kafka");
    let settings = settings(&kafka.bootstrap());
    let admin = kafka.admin_bootstrap();
    let network = kafka.proxy(1).expect("a proxy");
    let mut committing = JoinSet::new();
    for id in ["common-1", "common-2", "common-3"] {
        create_topic(&admin, id, 3, &[]).await.expect("a topic");
        let all = Transacting::begin(settings.clone(), id, MINUTE).await;
        let topic = all.topic(id).await;
        committing.spawn(async move {
            for round in 0..30 {
                push(&topic, round * 100..round * 100 + 100, &all.ends);
                all.commit().await.expect("a commit");
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    while !committing.is_empty() {
        tokio::select! {
            Some(committed) = committing.join_next() => committed.expect("no panic"),
            () = sleep(Duration::from_millis(200)) => network.reset_all(),
        }
    }
    for topic in ["common-1", "common-2", "common-3"] {
        assert_exactly(&admin, topic, 0..3_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_that_are_sealed_are_committed_in_their_order() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "sealed", 3, &[]).await.expect("a topic");
    let all = Transacting::begin(settings(&bootstrap), "sealed", MINUTE).await;
    let topic = all.topic("sealed").await;
    push(&topic, 0..100, &all.ends);
    let first = all.producer.seal();
    push(&topic, 100..200, &all.ends);
    let second = all.producer.seal();
    push(&topic, 200..300, &all.ends);
    let third = all.producer.seal();
    let commits = [third, first, second].map(|sealed| all.producer.commit(sealed));
    for committed in futures_util::future::join_all(commits).await {
        committed.expect("a commit");
    }
    assert_exactly(&bootstrap, "sealed", 0..300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_before_4_has_partitions_added_before() {
    let kafka = KafkaServer::builder().before_4().start().await.expect("a Kafka");
    many_are_committed_while_the_next_is_prepared(&kafka.bootstrap()).await;
    undone_and_begun_anew(&kafka.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_before_3_has_partitions_added_before() {
    let kafka = KafkaServer::builder().before_3().start().await.expect("a Kafka");
    many_are_committed_while_the_next_is_prepared(&kafka.bootstrap()).await;
    undone_and_begun_anew(&kafka.bootstrap()).await;
}

async fn undone_and_begun_anew(bootstrap: &str) {
    create_topic(bootstrap, "undone", 3, &[]).await.expect("a topic");
    let all = Transacting::begin(settings(bootstrap), "undone", MINUTE).await;
    let topic = all.topic("undone").await;
    for round in 0..3 {
        push(&topic, round * 200..round * 200 + 100, &all.ends);
        all.commit().await.expect("a commit");
        let undone = Arc::new(Ends::default());
        push(&topic, round * 200 + 100..round * 200 + 150, &undone);
        undone.reach(50).await;
        let _prepared = all.producer.seal();
        push(&topic, round * 200 + 150..round * 200 + 200, &undone);
        all.abort().await.expect("it is undone");
        assert_eq!((undone.count(), Arc::strong_count(&undone)), (50, 1), "receipts are dropped");
    }
    push(&topic, 600..700, &all.ends);
    all.commit().await.expect("a commit");
    assert_exactly(bootstrap, "undone", (0..700).filter(|n| n % 200 < 100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_undone_is_not_seen_and_the_next_transaction_is() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    undone_and_begun_anew(&bootstrap).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_shuts_the_first_one_out() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "fenced", 3, &[]).await.expect("a topic");
    let first = Transacting::begin(settings(&bootstrap), "fenced", MINUTE).await;
    let topic = first.topic("fenced").await;
    push(&topic, 0..100, &first.ends);
    first.ends.reach(100).await;
    let second = Transacting::begin(settings(&bootstrap), "fenced", MINUTE).await;
    let error = first.commit().await.expect_err("it is shut out");
    assert!(matches!(error, TransactionError::Fenced(_)), "{error:?}");
    let error = first.abort().await.expect_err("it is shut out");
    assert!(matches!(error, TransactionError::Fenced(_)), "{error:?}");
    push(&second.topic("fenced").await, 100..200, &second.ends);
    second.commit().await.expect("a commit");
    assert_exactly(&bootstrap, "fenced", 100..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_died_left_nothing() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "died", 3, &[]).await.expect("a topic");
    let first = Transacting::begin(settings(&bootstrap), "died", MINUTE).await;
    push(&first.topic("died").await, 0..100, &first.ends);
    first.ends.reach(100).await;
    drop(first);
    let second = Transacting::begin(settings(&bootstrap), "died", MINUTE).await;
    push(&second.topic("died").await, 100..200, &second.ends);
    second.commit().await.expect("a commit");
    assert_exactly(&bootstrap, "died", 100..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_lasts_too_long_is_given_up() {
    let interval = "transaction.abort.timed.out.transaction.cleanup.interval.ms";
    let kafka = KafkaServer::builder().property(interval, "200").start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "late", 3, &[]).await.expect("a topic");
    let limit = Duration::from_secs(1);
    let first = Transacting::begin(settings(&bootstrap), "late", limit).await;
    push(&first.topic("late").await, 0..100, &first.ends);
    first.ends.reach(100).await;
    // The broker tells nobody that it gave up.
    sleep(limit * 3).await;
    let error = first.commit().await.expect_err("it was given up");
    assert!(!matches!(error, TransactionError::Ended), "{error:?}");
    drop(first);
    let second = Transacting::begin(settings(&bootstrap), "late", MINUTE).await;
    push(&second.topic("late").await, 100..200, &second.ends);
    second.commit().await.expect("a commit");
    assert_exactly(&bootstrap, "late", 100..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_costs_no_transaction() {
    let kafka = KafkaServer::start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "killed-within", 3, &[]).await.expect("a topic");
    let all = Transacting::begin(settings(&bootstrap), "killed", MINUTE).await;
    let topic = all.topic("killed-within").await;
    push(&topic, 0..100, &all.ends);
    all.ends.reach(100).await;
    kafka.kill(1).await.expect("it is killed");
    push(&topic, 100..200, &all.ends);
    let committing = all.commit();
    let starting = async {
        sleep(Duration::from_millis(300)).await;
        kafka.start_again(1).await.expect("it is back");
    };
    let (committed, ()) = tokio::join!(committing, starting);
    committed.expect("a commit");
    push(&topic, 200..300, &all.ends);
    all.commit().await.expect("a commit");
    assert_exactly(&bootstrap, "killed-within", 0..300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_gone_costs_one_time_out_and_no_transaction() {
    let kafka = KafkaServer::builder().proxied().start().await.expect("a Kafka");
    let (bootstrap, network) = (kafka.bootstrap(), kafka.proxy(1).expect("a proxy"));
    create_topic(&bootstrap, "gone-within", 3, &[]).await.expect("a topic");
    let mut settings = settings(&bootstrap);
    settings.request_timeout = Duration::from_secs(4);
    let all = Transacting::begin(settings, "gone", MINUTE).await;
    let topic = all.topic("gone-within").await;
    push(&topic, 0..100, &all.ends);
    all.commit().await.expect("a commit");
    network.half_open();
    push(&topic, 100..200, &all.ends);
    sleep(Duration::from_millis(500)).await;
    // New connections work; those to sender and coordinator stay dead.
    network.resume();
    let began = Instant::now();
    all.commit().await.expect("a commit");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert_exactly(&kafka.admin_bootstrap(), "gone-within", 0..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_left_out_and_the_others_are_committed() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let limit = [("message.timestamp.before.max.ms", "3600000")];
    create_topic(&bootstrap, "within", 3, &limit).await.expect("a topic");
    create_topic(&bootstrap, "letters", 1, &[]).await.expect("a topic");
    let all = Transacting::begin(settings(&bootstrap), "within", MINUTE).await;
    let (topic, letters) = (all.topic("within").await, all.topic("letters").await);
    push(&topic, 0..50, &all.ends);
    let receipt = Arc::clone(&all.ends) as Arc<dyn Receipt>;
    let bad = Record { key: Some(b"key-1"), value: Some(b"50"), headers: &[], timestamp_ms: 1_000 };
    topic.begin().push(&bad, None, &receipt, 50).expect("a partition");
    push(&topic, 51..100, &all.ends);
    let sealed = all.producer.seal();
    push(&topic, 100..200, &all.ends);
    all.ends.reach(100).await;
    assert_eq!(all.ends.refused().keys().copied().collect::<Vec<_>>(), [50]);
    // Its dead letter is part of the same transaction.
    let letter = Record { timestamp_ms: now_ms(), ..bad };
    letters.begin_in(&sealed).push(&letter, None, &receipt, 0).expect("a partition");
    all.producer.commit(sealed).await.expect("a commit");
    assert_exactly(&bootstrap, "within", (0..100).filter(|n| *n != 50)).await;
    assert_eq!(read_topic(&bootstrap, "letters").await.expect("records").len(), 1);
    all.commit().await.expect("a commit");
    assert_exactly(&bootstrap, "within", (0..200).filter(|n| *n != 50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_not_be_written_is_named_and_the_next_transaction_does_without() {
    let builder = KafkaServer::builder().sasl_plain_users([("relay", "secret")]).authorizer();
    let kafka = builder.start().await.expect("a Kafka");
    let admin = kafka.admin_bootstrap();
    for topic in ["open", "denied"] {
        create_topic(&admin, topic, 3, &[]).await.expect("a topic");
    }
    let both = [TopicRight::Describe, TopicRight::Write];
    grant(&admin, "relay", "open", &both).await.expect("a right");
    grant(&admin, "relay", "denied", &both[..1]).await.expect("a right");
    let mut settings = settings(&kafka.bootstrap());
    settings.login = Some(Arc::new(Plain::new("relay", "secret")));
    let id = Transactional { id: "denied".into(), timeout: MINUTE };
    let (producer, driver) =
        TransactionalProducer::new(settings.clone(), id, Arc::new(Heard::default()));
    tokio::spawn(driver);
    let refused = timeout(LIMIT, producer.begin()).await.expect("in time");
    let refused = refused.expect_err("no right to have transactions");
    assert!(matches!(refused, TransactionError::Refused(_)), "{refused:?}");
    grant_transactions(&admin, "relay", "denied").await.expect("a right");
    let all = Transacting::begin(settings, "denied", MINUTE).await;
    let (open, denied) = (all.topic("open").await, all.topic("denied").await);
    push(&open, 0..100, &all.ends);
    push(&denied, 0..100, &Arc::default());
    let began = Instant::now();
    let failed = timeout(LIMIT, all.producer.failed()).await.expect("in time");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let TransactionError::Abortable { topic, .. } = &failed else { panic!("{failed:?}") };
    assert_eq!(topic.as_deref(), Some("denied"));
    all.commit().await.expect_err("it can't be committed");
    all.abort().await.expect("it is undone");
    push(&open, 100..200, &all.ends);
    all.commit().await.expect("a commit");
    assert_exactly(&admin, "open", 100..200).await;
}
