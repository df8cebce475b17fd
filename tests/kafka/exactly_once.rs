//! Exactly once: a consumer with `read_committed` sees each fact once, whatever crashes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytesize::ByteSize;
use factlib::{
    ErrorKind, Event, FaultSite, Faults, Pipeline,
    config::{DeliveryMode, RefusalPolicy, Route},
    emit::{Emitter, Fact},
    handlers::{ANY, Outcome},
    testing::{ConsumedRecord, create_topic, read_topic, wait_for_count},
};
use factlib_kafka::{
    Receipt, Refusal, Settings, Transactional, TransactionalProducer, Unobserved,
    record_batch::Record,
};
use tokio::sync::Notify;

use crate::support::{Bed, History, Workload, bed::LIMIT};

async fn bed(name: &str) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.config.delivery.mode = DeliveryMode::ExactlyOnce;
    bed.config.pipeline.restart_backoff = Duration::from_millis(50);
    bed.config.checkpoint.interval = Duration::from_millis(20);
    bed
}

/// Many small batches, and a few of them a transaction.
fn cut_small(bed: &mut Bed<'_>) {
    bed.config.pipeline.batch = ByteSize::kib(4);
    bed.config.delivery.max_bytes = ByteSize::kib(32);
}

async fn check(bed: &Bed<'_>, history: &History) {
    let report = bed.check(history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

async fn positions(bed: &Bed<'_>) -> Vec<ConsumedRecord> {
    let topic = bed.config.position_topic();
    read_topic(&bed.kafka.bootstrap(), &topic).await.expect("a readable topic")
}

/// The records that were sent for these ids, in all topics of the bed but the positions'.
async fn times(bed: &Bed<'_>, id: &str) -> usize {
    let mut times = 0;
    bed.each_record(|record| times += usize::from(record.key.as_deref() == Some(id.as_bytes())))
        .await;
    times
}

async fn emit(bed: &Bed<'_>, facts: &[Fact]) {
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let emitter = Emitter::new(bed.name.clone()).any_size();
    emitter.emit_all(&transaction, facts).await.expect("emitted");
    transaction.commit().await.expect("a commit");
}

#[actix::test]
async fn each_fact_comes_once_and_the_position_is_in_kafka_with_it() {
    let bed = bed("exactly").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 3_000).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    assert!(pipeline.status().transactions > 0);
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &history).await;

    let positions = positions(&bed).await;
    let keys: HashSet<_> = positions.iter().map(|position| position.key.clone()).collect();
    assert_eq!(keys.len(), 1, "one slot of one cluster");
    let last = positions.last().and_then(|position| position.value.clone()).expect("a position");
    let last: serde_json::Value = serde_json::from_slice(&last).expect("JSON");
    assert_eq!(last["slot"], bed.name.as_str());
}

/// Panics of actors, at every step of a transaction: the transaction is undone and done again.
#[actix::test]
async fn a_panic_at_any_step_repeats_nothing() {
    let mut bed = bed("panics").await;
    cut_small(&mut bed);
    let sites = [
        FaultSite::TopicProducer,
        FaultSite::Router,
        FaultSite::BeforePosition,
        FaultSite::BeforeCommit,
        FaultSite::AfterCommit,
        FaultSite::Checkpointer,
        FaultSite::BeforeSave,
        FaultSite::AfterSave,
        FaultSite::Decoder,
    ];
    // Each on its fifth passage after the one before it.
    let (place, passages) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    let struck = Arc::clone(&place);
    let faults = Faults::hook(move |site| {
        let at = place.load(Relaxed);
        if sites.get(at as usize) == Some(&site) && passages.fetch_add(1, Relaxed) == 4 {
            passages.store(0, Relaxed);
            place.store(at + 1, Relaxed);
            panic!("a fault at {site:?}, for the test");
        }
    });
    let pipeline = bed.pipeline().faults(faults).start().await.expect("the pipeline starts");
    let (mut client, mut history) = (bed.client().await, History::default());
    let mut round = 0;
    while struck.load(Relaxed) < sites.len() as u32 {
        round += 1;
        assert!(round < 200, "only {} faults came", struck.load(Relaxed));
        let prefix: &'static str = format!("{round}-").leak();
        let workload = Workload { aggregate_prefix: prefix, ..Workload::new(&bed.name, 200) };
        history.merge(workload.emit(&mut client).await);
        bed.delivered(&history).await;
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &history).await;
}

/// A transaction of PostgreSQL that is many of Kafka, relayed by one process after another, in
/// one mode after the other: each goes on inside of it.
#[actix::test]
async fn a_large_transaction_goes_on_in_its_middle_also_in_the_other_mode() {
    let mut bed = bed("middle").await;
    cut_small(&mut bed);
    bed.config.pipeline.window = ByteSize::kib(64);
    let facts = 5_000;
    // The slot is there first.
    bed.pipeline().start().await.expect("it starts").shutdown().await.expect("a clean stop");
    let workload = Workload {
        transaction: facts..=facts,
        rollback_every: 0,
        ..Workload::new(&bed.name, facts)
    };
    let history = workload.emit(&mut bed.client().await).await;
    let begin = bed.slot().await.0;
    for wanted in [2, 5, 9] {
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        while pipeline.status().transactions < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(pipeline);
        assert_eq!(bed.slot().await.0, begin, "it has not ended");
    }
    // Nothing of a transaction is open any more: at-least-once, too, goes on behind the last one.
    bed.config.delivery.mode = DeliveryMode::AtLeastOnce;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &history).await;
    assert_eq!(positions(&bed).await.last().expect("one").value, None, "it moved to the store");
}

#[actix::test]
async fn the_modes_follow_each_other_and_repeat_nothing_that_is_saved() {
    let mut bed = bed("modes").await;
    let (mut client, mut history) = (bed.client().await, History::default());
    let modes = [
        DeliveryMode::AtLeastOnce,
        DeliveryMode::ExactlyOnce,
        DeliveryMode::AtLeastOnce,
        DeliveryMode::ExactlyOnce,
    ];
    for (prefix, mode) in ["a-", "b-", "c-", "d-"].into_iter().zip(modes) {
        bed.config.delivery.mode = mode;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let workload = Workload { aggregate_prefix: prefix, ..Workload::new(&bed.name, 500) };
        history.merge(workload.emit(&mut client).await);
        bed.delivered(&history).await;
        if mode == DeliveryMode::ExactlyOnce {
            // As a crash: what is committed counts, whoever knows of it.
            drop(pipeline);
        } else {
            bed.confirmed(bed.wal_end().await).await;
            pipeline.shutdown().await.expect("a clean stop");
        }
    }
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &history).await;
}

/// A record that the broker refuses spoils its transaction: the next has it among the letters.
#[actix::test]
async fn a_record_that_is_refused_is_parked_once_and_repeats_nothing() {
    let bed = bed("refused").await;
    let topic = format!("{}.order", bed.name);
    let limit = [("max.message.bytes", "20000")];
    create_topic(&bed.kafka.bootstrap(), &topic, 1, &limit).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |id: &str, size: usize| {
        // Not compressible: the limit is for what is sent.
        let payload: Vec<u8> =
            (0..size).map(|n| (n * n / 7 % 251) as u8 ^ (n >> 8) as u8).collect();
        Fact::new("order", id, "order.made").payload(payload)
    };
    let large = 200_000;
    emit(&bed, &[fact("a", 10), fact("large", large), fact("b", 10)]).await;
    emit(&bed, &[fact("c", 10)]).await;
    let bootstrap = bed.kafka.bootstrap();
    wait_for_count(&bootstrap, &[&topic], 3, LIMIT).await.expect("the others");
    let letters = bed.config.dead_letter_topic();
    wait_for_count(&bootstrap, &[&letters], 1, LIMIT).await.expect("the letter");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    for id in ["a", "large", "b", "c"] {
        assert_eq!(times(&bed, id).await, 1, "{id}");
    }
}

/// What is filtered, and what goes to two topics, on both sides of a cut.
#[actix::test]
async fn filtered_events_and_fan_out_are_cut_where_the_events_are() {
    let mut bed = bed("fanout").await;
    cut_small(&mut bed);
    let prefix = bed.name.clone();
    let (one, two) = (format!("{prefix}.one"), format!("{prefix}.two"));
    bed.config.route = vec![Route::of("noise").dropped(), Route::of("both").to(&one).to(&two)];
    bed.pipeline().start().await.expect("it starts").shutdown().await.expect("a clean stop");
    let facts: Vec<_> = (0..3_000)
        .map(|n| {
            Fact::new(["noise", "both"][n % 2], format!("{n}"), "made").payload("x".repeat(50))
        })
        .collect();
    emit(&bed, &facts).await;
    for wanted in [2, 4] {
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        while pipeline.status().transactions < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(pipeline);
    }
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    for topic in [one, two] {
        let records = read_topic(&bed.kafka.bootstrap(), &topic).await.expect("a topic");
        let ids: HashSet<_> = records.iter().map(|record| record.key.clone()).collect();
        assert_eq!((records.len(), ids.len()), (1_500, 1_500), "{topic}");
    }
}

/// A handler is called again for what was undone; what it forwards is there once.
#[actix::test]
async fn what_a_handler_forwards_is_in_the_transaction() {
    let bed = bed("handler").await;
    let passages = AtomicU32::new(0);
    let faults = Faults::hook(move |site| {
        let first = site == FaultSite::BeforeCommit && passages.fetch_add(1, Relaxed) == 0;
        assert!(!first, "a fault, for the test");
    });
    let calls = Arc::new(AtomicU32::new(0));
    let called = Arc::clone(&calls);
    let handler = async move |_: &Event| {
        called.fetch_add(1, Relaxed);
        Ok(Outcome::Forward)
    };
    let pipeline = bed.pipeline().handler(ANY, handler).faults(faults).start().await;
    let pipeline = pipeline.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 2_000).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &history).await;
    assert!(calls.load(Relaxed) > 2_000, "nothing was undone");
}

/// Messages outside of transactions have positions of their own.
#[actix::test]
async fn messages_without_a_transaction_come_once() {
    let mut bed = bed("messages").await;
    // Nothing but the messages moves the position.
    bed.config.checkpoint.interval = Duration::from_secs(3_600);
    bed.config.postgres.status_interval = Duration::from_secs(3_600);
    let client = bed.client().await;
    for round in 0..4 {
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        for n in 0..50 {
            let fact = Fact::new("user", format!("{round}-{n}"), "made").payload("x");
            let bytes = prost::Message::encode_to_vec(&fact.to_event().expect("valid"));
            let emit = "SELECT pg_logical_emit_message(false, $1, $2::bytea)";
            client.execute(emit, &[&bed.name, &bytes]).await.expect("a message is emitted");
        }
        let (bootstrap, topic) = (bed.kafka.bootstrap(), format!("{}.user", bed.name));
        wait_for_count(&bootstrap, &[&topic], 50 * (round + 1), LIMIT).await.expect("all come");
        drop(pipeline);
    }
    let records = read_topic(&bed.kafka.bootstrap(), &format!("{}.user", bed.name)).await;
    let records = records.expect("a topic");
    let keys: HashSet<_> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!((records.len(), keys.len()), (200, 200));
}

/// Another program's transaction with one record in the topic of positions, which stays open.
async fn transaction_of_another(bed: &Bed<'_>, key: &str) -> TransactionalProducer {
    #[derive(Default)]
    struct Acknowledged(Notify);
    impl Receipt for Acknowledged {
        fn acknowledged(&self, _: &[u32]) {
            self.0.notify_one();
        }
        fn refused(&self, _: u32, refusal: &Refusal) {
            panic!("{refusal:?}");
        }
        fn not_sent(&self, _: &[u32]) {
            panic!("not sent");
        }
    }
    let transactional = Transactional { id: "another".into(), timeout: Duration::from_secs(60) };
    let settings = Settings::new(vec![bed.kafka.bootstrap()]);
    let (producer, driver) =
        TransactionalProducer::new(settings, transactional, Arc::new(Unobserved));
    tokio::spawn(driver);
    producer.begin().await.expect("it begins");
    let topic = producer.topic(bed.config.position_topic()).await.expect("the topic");
    let record = Record {
        key: Some(key.as_bytes()),
        value: None,
        headers: &[],
        timestamp_ms: 1_700_000_000_000,
    };
    let acknowledged = Arc::<Acknowledged>::default();
    let receipt: Arc<dyn Receipt> = Arc::clone(&acknowledged) as _;
    topic.begin().push(&record, Some(0), &receipt, 0).expect("pushed");
    let notified = acknowledged.0.notified();
    tokio::time::timeout(LIMIT, notified).await.expect("an acknowledgement");
    producer
}

#[actix::test]
async fn an_open_transaction_holds_up_the_start_of_its_own_slot_only() {
    let mut bed = bed("open").await;
    bed.config.delivery.transaction_timeout = Duration::from_secs(30);
    let started = async || {
        let start = bed.pipeline().start();
        tokio::time::timeout(Duration::from_secs(5), start).await.map(|one| one.expect("it starts"))
    };
    let pipeline = started().await.expect("in time");
    let history = Workload::new(&bed.name, 200).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let own = positions(&bed).await.pop().and_then(|last| last.key).expect("a position");
    let other = transaction_of_another(&bed, "another/slot").await;
    let pipeline = started().await.expect("a transaction of another slot is not waited for");
    pipeline.shutdown().await.expect("a clean stop");
    other.abort().await.expect("an abort");
    let other = transaction_of_another(&bed, std::str::from_utf8(&own).expect("text")).await;
    assert!(started().await.is_err(), "the transaction may be the one that counts");
    other.abort().await.expect("an abort");
    started().await.expect("in time").shutdown().await.expect("a clean stop");
    check(&bed, &history).await;
}

#[actix::test]
async fn a_paused_topic_holds_all_and_leaves_no_transaction_open() {
    let bed = bed("paused").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |kind: &str, id: &str| Fact::new(kind, id, "made").payload("x");
    emit(&bed, &[fact("user", "1"), fact("order", "1")]).await;
    let (users, orders) = (format!("{}.user", bed.name), format!("{}.order", bed.name));
    let bootstrap = bed.kafka.bootstrap();
    wait_for_count(&bootstrap, &[&users, &orders], 2, LIMIT).await.expect("both");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.pause_topic(orders.as_str()).expect("known");
    emit(&bed, &[fact("user", "2"), fact("order", "2")]).await;
    // Read, and held.
    let held = async {
        while pipeline.status().in_flight_bytes == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, held).await.expect("the events are read");
    assert_eq!(read_topic(&bootstrap, &users).await.expect("a topic").len(), 1);
    pipeline.resume_topic(orders.as_str()).expect("known");
    wait_for_count(&bootstrap, &[&users, &orders], 4, LIMIT).await.expect("all");
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn what_contradicts_it_is_refused_at_the_start() {
    let bed = bed("contradiction").await;
    let without = bed.pipeline().without_kafka().start().await.expect_err("no Kafka");
    assert_eq!(without.kind(), ErrorKind::Config);
    assert!(without.to_string().contains("needs Kafka"), "{without}");
    let mut config = bed.config.clone();
    config.dead_letter.policy = RefusalPolicy::Block;
    let blocks = Pipeline::builder().config(config).start().await.expect_err("it would block");
    assert!(blocks.to_string().contains("dead_letter.policy"), "{blocks}");
    let mut config = bed.config.clone();
    config.kafka.properties.insert("transactional.id".into(), "mine".into());
    let id = Pipeline::builder().config(config).start().await.expect_err("an id of one's own");
    assert!(id.to_string().contains("cluster and slot"), "{id}");
}
