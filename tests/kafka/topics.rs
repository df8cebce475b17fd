//! Topics that can't be had, that are not as they should be, or that change: their events are
//! parked or wait, by policy, and the others flow.

use std::time::Duration;

use factlib::{
    PipelineHandle,
    config::{DeliveryMode, RefusalPolicy},
    emit::Fact,
    testing::{
        CollectedLogs, ConsumedRecord, KafkaServer, LogLine, TopicRight, create_topic, deny, grant,
        grant_transactions, read_topic, shared_postgres, topic_names, wait_for_count,
    },
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Bed,
    bed::LIMIT,
    records::{emit, header, records},
};

const MODES: [DeliveryMode; 2] = [DeliveryMode::AtLeastOnce, DeliveryMode::ExactlyOnce];

/// Pauses between tries that a test can wait for.
fn impatient(bed: &mut Bed<'_>, mode: DeliveryMode) {
    bed.config.delivery.mode = mode;
    bed.config.delivery.transaction_timeout = Duration::from_secs(10);
    bed.config.pipeline.restart_backoff = Duration::from_millis(50);
    bed.config.pipeline.restart_backoff_max = Duration::from_millis(500);
    // Some tests stop with events that can't be delivered.
    bed.config.pipeline.drain_timeout = Duration::from_secs(5);
}

fn admin(bed: &Bed<'_>) -> AdminClient<DefaultClientContext> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bed.kafka.admin_bootstrap());
    client.create().expect("a client")
}

/// The value of a topic's setting.
async fn setting(bed: &Bed<'_>, topic: &str, name: &str) -> String {
    let asked = [ResourceSpecifier::Topic(topic)];
    let answers = admin(bed).describe_configs(&asked, &AdminOptions::new()).await;
    let answer = answers.expect("an answer").remove(0).expect("settings");
    answer.get(name).and_then(|entry| entry.value.clone()).expect("a value")
}

async fn partitions(bed: &Bed<'_>, topic: &str) -> usize {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bed.kafka.admin_bootstrap());
    let topic = topic.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = client.create().expect("a client");
        let answer = client.fetch_metadata(Some(&topic), LIMIT).expect("metadata");
        answer.topics()[0].partitions().len()
    });
    asking.await.expect("an answer")
}

fn facts(kind: &str, ids: std::ops::Range<usize>) -> Vec<Fact> {
    ids.map(|n| Fact::new(kind, format!("{kind}-{n}"), "it.happened")).collect()
}

/// Facts of two types, in turns, in one transaction.
async fn emit_both(bed: &Bed<'_>, one: &str, other: &str, ids: std::ops::Range<usize>) {
    let (ones, others) = (facts(one, ids.clone()), facts(other, ids));
    let both: Vec<_> = ones.into_iter().zip(others).flat_map(|(a, b)| [a, b]).collect();
    emit(bed, &both).await;
}

/// What the status says of a topic, once `holds` is true of it.
async fn topic_status(
    pipeline: &PipelineHandle,
    topic: &str,
    what: &str,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let looking = async {
        loop {
            let status = serde_json::to_value(pipeline.status()).expect("JSON");
            if holds(&status["topics"][topic]) {
                return status["topics"][topic].clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = timeout(LIMIT, looking).await;
    found.unwrap_or_else(|_| panic!("{what}: {:#?}", pipeline.status().topics.get(topic)))
}

async fn said(lines: &CollectedLogs, message: &str) -> LogLine {
    let found = lines.await_line(|line| line.message == message, LIMIT).await;
    found.unwrap_or_else(|| panic!("nobody says {message:?}"))
}

/// Letters, each with the topic that it was for and words of the broker's.
async fn parked(bed: &Bed<'_>, count: usize, topic: &str, words: &str) -> Vec<ConsumedRecord> {
    let letters = records(bed, &bed.config.dead_letter_topic(), count).await;
    for letter in &letters {
        assert_eq!(header(letter, "dead_letter_topic"), topic, "{letter:?}");
        assert!(header(letter, "dead_letter_error").contains(words), "{letter:?}");
    }
    letters
}

/// `order_item` beside `order.item`: Kafka takes them for one in the names of its metrics.
#[actix::test]
async fn a_name_that_kafka_refuses_parks_its_events_and_is_asked_for_again() {
    for mode in MODES {
        let mut bed = Bed::shared("collides").await;
        impatient(&mut bed, mode);
        let bootstrap = bed.kafka.bootstrap();
        let name = bed.name.clone();
        let taken = format!("{name}.order.item");
        create_topic(&bootstrap, &taken, 1, &[]).await.expect("a topic");
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        emit_both(&bed, "order_item", "user", 0..20).await;
        records(&bed, &format!("{name}.user"), 20).await;
        let topic = format!("{name}.order_item");
        parked(&bed, 20, &topic, "INVALID_TOPIC_EXCEPTION").await;
        bed.confirmed(bed.wal_end().await).await;
        let status = pipeline.status();
        assert_eq!((status.dead_letters, status.generation), (20, 1), "{mode:?}");
        topic_status(&pipeline, &topic, "the broker's words", |status| {
            status["refused"].as_str().is_some_and(|why| why.contains("INVALID_TOPIC_EXCEPTION"))
        })
        .await;
        // The operator gives the name free.
        let deleted = admin(&bed).delete_topics(&[&taken], &AdminOptions::new()).await;
        deleted.expect("an answer").remove(0).expect("it is deleted");
        let mut sent = 0;
        while !topic_names(&bootstrap).await.expect("names").contains(&topic) {
            emit(&bed, &facts("order_item", 100 + sent..101 + sent)).await;
            sent += 1;
            assert!(sent < 600, "it is never asked for again");
            sleep(Duration::from_millis(100)).await;
        }
        emit(&bed, &facts("order_item", 1_000..1_001)).await;
        bed.confirmed(bed.wal_end().await).await;
        let letters = pipeline.status().dead_letters as usize - 20;
        assert_eq!(records(&bed, &topic, sent + 1 - letters).await.len() + letters, sent + 1);
        topic_status(&pipeline, &topic, "no refusal", |status| status["refused"].is_null()).await;
        pipeline.shutdown().await.expect("a clean stop");
    }
}

#[actix::test]
async fn a_refused_topic_goes_by_the_policy() {
    let mut bed = Bed::shared("policy").await;
    impatient(&mut bed, DeliveryMode::AtLeastOnce);
    let bootstrap = bed.kafka.bootstrap();
    let taken = format!("{}.order.item", bed.name);
    create_topic(&bootstrap, &taken, 1, &[]).await.expect("a topic");
    bed.config.dead_letter.policy = RefusalPolicy::Block;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit_both(&bed, "order_item", "user", 0..5).await;
    records(&bed, &format!("{}.user", bed.name), 5).await;
    let topic = format!("{}.order_item", bed.name);
    let waits = topic_status(&pipeline, &topic, "it is tried again", |status| {
        status["restarts"].as_u64() > Some(2)
    })
    .await;
    assert!(
        waits["last_error"].as_str().expect("an error").contains("INVALID_TOPIC_EXCEPTION"),
        "{waits:#}"
    );
    pipeline.shutdown().await.expect_err("events are in flight");
    bed.config.dead_letter.policy = RefusalPolicy::Stop;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let error = pipeline.wait().await.expect_err("it stops");
    assert!(error.to_string().contains(&topic), "{error}");
    assert!(error.to_string().contains("INVALID_TOPIC_EXCEPTION"), "{error}");
}

#[actix::test]
async fn where_aggregates_are_held_a_refused_topic_is_not_asked_for_with_each_event() {
    let mut bed = Bed::shared("policy_held").await;
    impatient(&mut bed, DeliveryMode::AtLeastOnce);
    bed.config.pipeline.restart_backoff_max = Duration::from_secs(600);
    bed.config.dead_letter.policy = RefusalPolicy::HoldAggregate;
    let taken = format!("{}.order.item", bed.name);
    create_topic(&bed.kafka.bootstrap(), &taken, 1, &[]).await.expect("a topic");
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    for n in 0..5 {
        emit(&bed, &facts("order_item", n..n + 1)).await;
        bed.confirmed(bed.wal_end().await).await;
    }
    assert_eq!(pipeline.status().dead_letters, 5);
    let lines = logs.lines();
    let said = lines.iter().filter(|line| line.message == "Kafka does not take the topic");
    assert_eq!(said.count(), 1);
    pipeline.shutdown().await.expect("a clean stop");
}

/// Neither the topic nor that of the letters can be created: the letters go to the table.
#[actix::test]
async fn a_wrong_topic_setting_parks_new_topics_in_the_table_and_the_others_flow() {
    for mode in MODES {
        let mut bed = Bed::shared("setting").await;
        impatient(&mut bed, mode);
        bed.config.kafka.topics.config.insert("retention.ms".into(), "soon".into());
        let bootstrap = bed.kafka.bootstrap();
        let user = format!("{}.user", bed.name);
        create_topic(&bootstrap, &user, 1, &[]).await.expect("a topic");
        create_topic(&bootstrap, &bed.config.position_topic(), 1, &[("cleanup.policy", "compact")])
            .await
            .expect("a topic");
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        emit_both(&bed, "order", "user", 0..10).await;
        records(&bed, &user, 10).await;
        bed.confirmed(bed.wal_end().await).await;
        assert_eq!(pipeline.status().dead_letters, 10, "{mode:?}");
        let letters = "SELECT count(*)::text FROM factlib.dead_letters";
        let letters = bed.postgres.query_text(&bed.database, letters).await.expect("the table");
        assert_eq!(letters, "10", "{mode:?}");
        pipeline.shutdown().await.expect("a clean stop");
    }
}

/// More replicas than brokers: brokers may come back, so the topic waits, alone.
#[actix::test]
async fn a_topic_that_lacks_brokers_waits_alone() {
    let mut bed = Bed::shared("replicas").await;
    impatient(&mut bed, DeliveryMode::AtLeastOnce);
    bed.config.kafka.topics.replication_factor = Some(2);
    let bootstrap = bed.kafka.bootstrap();
    let [user, order] = ["user", "order"].map(|kind| format!("{}.{kind}", bed.name));
    create_topic(&bootstrap, &user, 1, &[]).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit_both(&bed, "order", "user", 0..10).await;
    records(&bed, &user, 10).await;
    let status = topic_status(&pipeline, &order, "it is tried again", |status| {
        status["restarts"].as_u64() > Some(1)
    })
    .await;
    let why = status["last_error"].as_str().expect("an error");
    assert!(why.contains("fewer brokers than kafka.topics.replication_factor"), "{why}");
    // What a second broker would allow.
    create_topic(&bootstrap, &order, 1, &[]).await.expect("a topic");
    records(&bed, &order, 10).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().dead_letters, 0);
    pipeline.shutdown().await.expect("a clean stop");
}

/// One transaction holds all topics: the one that can't be had is waited for while the
/// transaction can be, and then parked.
#[actix::test]
async fn in_a_transaction_a_topic_that_lacks_brokers_is_parked_after_a_while() {
    let mut bed = Bed::shared("lacking").await;
    impatient(&mut bed, DeliveryMode::ExactlyOnce);
    bed.config.kafka.topics.replication_factor = Some(2);
    let bootstrap = bed.kafka.bootstrap();
    let own = [bed.config.position_topic(), bed.config.dead_letter_topic()];
    let [user, order] = ["user", "order"].map(|kind| format!("{}.{kind}", bed.name));
    for topic in own.iter().chain([&user]) {
        let compact = [("cleanup.policy", "compact")];
        let settings = if *topic == own[0] { &compact[..] } else { &[] };
        create_topic(&bootstrap, topic, 1, settings).await.expect("a topic");
    }
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit_both(&bed, "order", "user", 0..10).await;
    parked(&bed, 10, &order, "fewer brokers than kafka.topics.replication_factor").await;
    records(&bed, &user, 10).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().generation, 1, "no transaction was undone for it");
    pipeline.shutdown().await.expect("a clean stop");
}

/// A Kafka whose user `relay` has all that the relay needs but the right to write to `order`.
async fn guarded() -> KafkaServer {
    let kafka = KafkaServer::builder().sasl_plain_users([("relay", "secret")]).authorizer();
    kafka.start().await.expect("Kafka starts")
}

async fn guarded_bed<'a>(kafka: &'a KafkaServer, name: &str, mode: DeliveryMode) -> Bed<'a> {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let mut bed = Bed::on(postgres, kafka, name).await;
    impatient(&mut bed, mode);
    bed.config.kafka.username = Some("relay".into());
    bed.config.kafka.password = Some("secret".to_owned().into());
    bed.config.kafka.sasl_mechanism = "PLAIN".into();
    let (admin, topics) = (kafka.admin_bootstrap(), format!("{}.", bed.name));
    let rights = [TopicRight::Describe, TopicRight::Create, TopicRight::DescribeConfigs];
    grant(&admin, "relay", &topics, &rights).await.expect("rights");
    for topic in ["user", "dead-letter", "checkpoints"] {
        let topic = format!("{topics}{topic}");
        let rights = [TopicRight::Write, TopicRight::Read];
        grant(&admin, "relay", &topic, &rights).await.expect("rights");
    }
    grant_transactions(&admin, "relay", "factlib-").await.expect("rights");
    bed
}

const DENIED: &str = "TOPIC_AUTHORIZATION_FAILED";

#[actix::test]
async fn without_the_right_to_write_a_topic_waits_alone_until_it_is_given() {
    let kafka = guarded().await;
    let bed = guarded_bed(&kafka, "denied", DeliveryMode::AtLeastOnce).await;
    let [user, order] = ["user", "order"].map(|kind| format!("{}.{kind}", bed.name));
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    for ids in [0..10, 10..20] {
        emit_both(&bed, "order", "user", ids.clone()).await;
        records(&bed, &user, ids.end).await;
    }
    let status = topic_status(&pipeline, &order, "it is tried again", |status| {
        status["restarts"].as_u64() > Some(2)
    })
    .await;
    let why = status["last_error"].as_str().expect("an error");
    assert!(why.contains(DENIED) && why.contains("the ACLs Describe and Write"), "{why}");
    let admin = kafka.admin_bootstrap();
    grant(&admin, "relay", &order, &[TopicRight::Write]).await.expect("rights");
    records(&bed, &order, 20).await;
    bed.confirmed(bed.wal_end().await).await;
    // Taken away again while the topic is open.
    deny(&admin, "relay", &order, &[TopicRight::Write]).await.expect("the ACL");
    emit_both(&bed, "order", "user", 20..30).await;
    records(&bed, &user, 30).await;
    topic_status(&pipeline, &order, "it waits again", |status| status["waiting"] == 10).await;
    assert_eq!(pipeline.status().dead_letters, 0);
    pipeline.shutdown().await.expect_err("events are in flight");
}

#[actix::test]
async fn in_a_transaction_a_topic_without_the_right_to_write_is_parked_with_the_true_cause() {
    let kafka = guarded().await;
    let bed = guarded_bed(&kafka, "denied_tx", DeliveryMode::ExactlyOnce).await;
    let [user, order] = ["user", "order"].map(|kind| format!("{}.{kind}", bed.name));
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    emit_both(&bed, "order", "user", 0..10).await;
    records(&bed, &user, 10).await;
    parked(&bed, 10, &order, DENIED).await;
    bed.confirmed(bed.wal_end().await).await;
    topic_status(&pipeline, &order, "the broker's words", |status| {
        status["refused"].as_str().is_some_and(|why| why.contains(DENIED))
    })
    .await;
    let failed = said(&lines, "generation failed").await;
    let why = failed.value("error").expect("an error");
    assert!(why.contains(DENIED) && why.contains(&order), "{why}");
    let admin = kafka.admin_bootstrap();
    grant(&admin, "relay", &order, &[TopicRight::Write]).await.expect("rights");
    let mut sent = 0;
    while read_topic(&admin, &order).await.expect("a topic").is_empty() {
        emit(&bed, &facts("order", 100 + sent..101 + sent)).await;
        sent += 1;
        assert!(sent < 600, "it is never asked for again");
        sleep(Duration::from_millis(100)).await;
    }
    // Taken away again while the topic is open, with records of both in one transaction.
    bed.confirmed(bed.wal_end().await).await;
    let letters = pipeline.status().dead_letters as usize;
    deny(&admin, "relay", &order, &[TopicRight::Write]).await.expect("the ACL");
    emit_both(&bed, "order", "user", 10..20).await;
    records(&bed, &user, 20).await;
    bed.confirmed(bed.wal_end().await).await;
    let letters_topic = bed.config.dead_letter_topic();
    records(&bed, &letters_topic, letters + 10).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn types_that_would_land_in_our_own_topics_are_parked() {
    for mode in MODES {
        let mut bed = Bed::shared("reserved").await;
        impatient(&mut bed, mode);
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        emit_both(&bed, "dead-letter", "checkpoints", 0..3).await;
        emit(&bed, &facts("user", 0..3)).await;
        records(&bed, &format!("{}.user", bed.name), 3).await;
        let letters = records(&bed, &bed.config.dead_letter_topic(), 6).await;
        for letter in letters {
            let why = header(&letter, "dead_letter_error");
            assert!(why.contains("is the relay's own topic"), "{why}");
        }
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
    }
}

/// Brokers create what a producer asks for, unless it says that they should not.
#[actix::test]
async fn new_topics_are_as_configured_where_brokers_create_them_too() {
    let mut bed = Bed::shared("automatic").await;
    impatient(&mut bed, DeliveryMode::AtLeastOnce);
    bed.config.kafka.topics.partitions = Some(7);
    bed.config.kafka.topics.config.insert("retention.ms".into(), "86400001".into());
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &facts("user", 0..5)).await;
    let user = format!("{}.user", bed.name);
    records(&bed, &user, 5).await;
    assert_eq!(partitions(&bed, &user).await, 7);
    assert_eq!(setting(&bed, &user, "retention.ms").await, "86400001");
    pipeline.shutdown().await.expect("a clean stop");

    bed.config.kafka.topics.create = false;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let order = format!("{}.order", bed.name);
    emit_both(&bed, "order", "user", 5..10).await;
    records(&bed, &user, 10).await;
    let status = topic_status(&pipeline, &order, "it is tried again", |status| {
        status["restarts"].as_u64() > Some(2)
    })
    .await;
    let why = status["last_error"].as_str().expect("an error");
    assert!(why.contains("does not exist"), "{why}");
    let names = topic_names(&bed.kafka.bootstrap()).await.expect("names");
    assert!(!names.contains(&order), "{names:?}");
    create_topic(&bed.kafka.bootstrap(), &order, 2, &[]).await.expect("a topic");
    records(&bed, &order, 5).await;
    assert_eq!(partitions(&bed, &order).await, 2);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn the_position_topic_is_compacted_or_the_start_is_refused() {
    let mut bed = Bed::shared("compacted").await;
    impatient(&mut bed, DeliveryMode::ExactlyOnce);
    let bootstrap = bed.kafka.bootstrap();
    let topic = bed.config.position_topic();
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    assert_eq!(setting(&bed, &topic, "cleanup.policy").await, "compact");
    assert_eq!(partitions(&bed, &topic).await, 1);
    pipeline.shutdown().await.expect("a clean stop");

    // As a broker makes it by itself, or an operator without a look at the docs.
    for policy in ["delete", "compact,delete"] {
        let topic = format!("{}.{}", bed.name, policy.replace(',', "-"));
        let settings = [("cleanup.policy", policy), ("retention.ms", "7000001")];
        create_topic(&bootstrap, &topic, 3, &settings).await.expect("a topic");
        bed.config.delivery.position_topic = Some(topic.clone());
        bed.config.kafka.topics.create = false;
        let error = bed.pipeline().start().await.expect_err("it is refused").to_string();
        assert!(error.contains("--add-config cleanup.policy=compact"), "{error}");
        bed.config.kafka.topics.create = true;
        let (log, lines) = CollectedLogs::logger();
        let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
        said(&lines, "topic for positions is compacted from now on").await;
        assert_eq!(setting(&bed, &topic, "cleanup.policy").await, "compact");
        assert_eq!(setting(&bed, &topic, "retention.ms").await, "7000001", "it stays");
        emit(&bed, &facts("user", 0..1)).await;
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
    }
}

#[actix::test]
async fn partitions_that_are_added_are_said() {
    for mode in MODES {
        let mut bed = Bed::shared("grows").await;
        impatient(&mut bed, mode);
        bed.config.kafka.topics.partitions = Some(3);
        bed.config.kafka.statistics_interval = Duration::from_secs(1);
        let (log, lines) = CollectedLogs::logger();
        let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
        emit(&bed, &facts("user", 0..5)).await;
        let user = format!("{}.user", bed.name);
        records(&bed, &user, 5).await;
        topic_status(&pipeline, &user, "three", |status| status["partitions"] == 3).await;
        let eight = NewPartitions::new(&user, 8);
        let added = admin(&bed).create_partitions([&eight], &AdminOptions::new()).await;
        added.expect("an answer").remove(0).expect("they are added");
        let begin = Instant::now();
        let status =
            topic_status(&pipeline, &user, "eight", |status| status["partitions"] == 8).await;
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
        assert_eq!(status["partitions_before"], 3);
        let line = said(&lines, "partitions of a topic have changed").await;
        assert_eq!((line.value("before"), line.value("now")), (Some("3"), Some("8")));
        pipeline.shutdown().await.expect("a clean stop");
    }
}

/// The pause between two tries is longer than this test: the broker's return ends it.
#[actix::test]
async fn a_topic_that_is_new_during_an_outage_is_delivered_when_the_broker_is_back() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let mut bed = Bed::on(postgres, &kafka, "outage").await;
    let pause = Duration::from_secs(60);
    (bed.config.pipeline.restart_backoff, bed.config.pipeline.restart_backoff_max) = (pause, pause);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit(&bed, &facts("user", 0..1)).await;
    let [user, order] = ["user", "order"].map(|kind| format!("{}.{kind}", bed.name));
    records(&bed, &user, 1).await;
    kafka.kill(1).await.expect("the broker is killed");
    emit(&bed, &facts("order", 0..5)).await;
    topic_status(&pipeline, &order, "it failed", |status| status["restarts"].as_u64() > Some(0))
        .await;
    kafka.start_again(1).await.expect("the broker is back");
    let back = Instant::now();
    wait_for_count(&bed.kafka.bootstrap(), &[&order], 5, LIMIT).await.expect("records");
    let took = back.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    pipeline.shutdown().await.expect("a clean stop");
}
