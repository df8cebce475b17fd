//! Partitions that are added to a topic: what was mapped to the former ones comes before the seam,
//! everything else behind it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use factlib::{
    config::{DeliveryMode, PartitionsAdded},
    doctor::{CheckOutcome, examine},
    emit::{Emitter, Fact},
    testing::{CollectedLogs, LogLine, create_topic, read_topic, wait_for_count},
};
use factlib_kafka::{Client, Settings, partitioner};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{
    Bed,
    bed::LIMIT,
    records::{emit, records},
};

const MODES: [DeliveryMode; 2] = [DeliveryMode::AtLeastOnce, DeliveryMode::ExactlyOnce];

const AGGREGATES: usize = 50;

const USED: &str = "added partitions are used from here on";

async fn bed(name: &str, mode: DeliveryMode, policy: PartitionsAdded) -> (Bed<'static>, String) {
    let mut bed = Bed::shared(name).await;
    bed.config.delivery.mode = mode;
    bed.config.kafka.on_partitions_added = policy;
    bed.config.kafka.metadata_max_age = Duration::from_millis(200);
    bed.config.pipeline.drain_timeout = Duration::from_secs(10);
    let topic = format!("{}.user", bed.name);
    create_topic(&bed.kafka.bootstrap(), &topic, 2, &[]).await.expect("a topic");
    (bed, topic)
}

async fn add_partitions(bed: &Bed<'_>, topic: &str, count: i32) {
    let client = Client::new(Settings::new(vec![bed.kafka.bootstrap()]));
    client.add_partitions(topic, count).await.expect("they are added");
}

/// Facts whose event types are numbers.
fn facts(numbers: std::ops::Range<usize>) -> Vec<Fact> {
    let fact = |number: usize| {
        Fact::new("user", format!("u{}", number % AGGREGATES), number.to_string()).payload("{}")
    };
    numbers.map(fact).collect()
}

/// Emits until `end` is over; returns the number of facts.
async fn emit_during<T>(bed: &Bed<'_>, end: impl Future<Output = T>) -> (usize, T) {
    let (mut client, mut sent) = (bed.client().await, 0);
    let emitter = Emitter::new(bed.name.clone());
    let mut end = std::pin::pin!(end);
    loop {
        let transaction = client.transaction().await.expect("a transaction");
        emitter.emit_all(&transaction, &facts(sent..sent + 50)).await.expect("emitted");
        transaction.commit().await.expect("a commit");
        sent += 50;
        tokio::select! {
            biased;
            ended = &mut end => return (sent, ended),
            () = sleep(Duration::from_millis(2)) => {}
        }
    }
}

async fn said(lines: &CollectedLogs, message: &str) -> LogLine {
    let found = lines.await_line(|line| line.message == message, LIMIT).await;
    found.unwrap_or_else(|| panic!("nobody says {message:?}: {:?}", lines.lines()))
}

/// The offsets of a line, by partition.
fn seam(line: &LogLine) -> Vec<i64> {
    let offsets = line.value("seam").expect("a seam").split(' ').enumerate();
    let offset = |(at, text): (usize, &str)| {
        let (partition, offset) = text.split_once(':').expect("partition and offset");
        assert_eq!(partition, at.to_string());
        offset.parse().expect("an offset")
    };
    offsets.map(offset).collect()
}

/// Checks that each record is on the right side of the seam and in the partition of that side, and
/// that each aggregate's facts are in order on each side and across it. Returns the number of
/// records behind the seam.
async fn assert_seam(bed: &Bed<'_>, topic: &str, seam: &[i64], counts: (i32, i32)) -> usize {
    let mut last: [HashMap<Vec<u8>, usize>; 2] = Default::default();
    let mut first_behind: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut behind = 0;
    for record in read_topic(&bed.kafka.bootstrap(), topic).await.expect("records") {
        let key = record.key.as_deref().expect("a key").to_vec();
        let number = record.header("event_type").expect("a type");
        let number: usize = std::str::from_utf8(number).expect("text").parse().expect("a number");
        let end = seam.get(record.partition as usize).copied().unwrap_or_default();
        let is_behind = record.offset >= end;
        let count = if is_behind { counts.1 } else { counts.0 };
        let place = format!("{}:{}", record.partition, record.offset);
        assert_eq!(record.partition, partitioner::of_key(&key, count), "{place} {seam:?}");
        let before = last[usize::from(is_behind)].insert(key.clone(), number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
        if is_behind {
            first_behind.entry(key).or_insert(number);
            behind += 1;
        }
    }
    for (key, first) in first_behind {
        assert!(last[0].get(&key).is_none_or(|last| *last < first), "{key:?} overtakes itself");
    }
    behind
}

#[actix::test]
async fn a_topic_drains_before_added_partitions_are_used_and_the_seam_is_logged() {
    for mode in MODES {
        let (mut bed, topic) = bed("drains", mode, PartitionsAdded::Drain).await;
        let (log, lines) = CollectedLogs::logger();
        let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
        let growing = async {
            wait_for_count(&bed.kafka.bootstrap(), &[&topic], 500, LIMIT).await.expect("records");
            add_partitions(&bed, &topic, 4).await;
            let line = said(&lines, USED).await;
            sleep(Duration::from_millis(300)).await;
            line
        };
        let (sent, line) = emit_during(&bed, growing).await;
        records(&bed, &topic, sent).await;
        let changed = said(&lines, "partitions of a topic have changed").await;
        assert_eq!((changed.value("before"), changed.value("now")), (Some("2"), Some("4")));
        let seam_offsets = seam(&line);
        assert_eq!(seam_offsets.len(), 2);
        assert!(assert_seam(&bed, &topic, &seam_offsets, (2, 4)).await > 0, "{mode:?}");
        let status = pipeline.status();
        assert_eq!(status.topics[topic.as_str()].partition_seam, Some(seam_offsets));
        assert_eq!(status.topics[topic.as_str()].restarts, 0, "it needs no new opening");
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");

        // While no relay runs.
        add_partitions(&bed, &topic, 6).await;
        let report = examine(&bed.config, &Logger::root(Discard, o!())).await.expect("a report");
        let found = report.checks.iter().find(|check| check.name == "partitions").expect("a check");
        assert_eq!(found.outcome, CheckOutcome::Warning);
        let wanted =
            format!("added since the relay last sent to the topic: {topic} (had 4, has 6)");
        assert_eq!(found.found, wanted);
        let (log, lines) = CollectedLogs::logger();
        let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
        emit(&bed, &facts(sent..sent + 200)).await;
        let line = said(&lines, USED).await;
        records(&bed, &topic, sent + 200).await;
        assert_eq!((line.value("before"), line.value("now")), (Some("4"), Some("6")));
        let end: i64 = seam(&line).iter().sum();
        assert!(end >= sent as i64, "{line:?}");
        let after = read_topic(&bed.kafka.bootstrap(), &topic).await.expect("records");
        let seam = seam(&line);
        let behind = after.iter().filter(|record| {
            seam.get(record.partition as usize).is_none_or(|seam| record.offset >= *seam)
        });
        assert_eq!(behind.count(), 200);
        pipeline.shutdown().await.expect("a clean stop");
        // It is not said again.
        let (log, lines) = CollectedLogs::logger();
        bed.config.kafka.on_partitions_added = PartitionsAdded::Stop;
        let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
        emit(&bed, &facts(0..1)).await;
        records(&bed, &topic, sent + 201).await;
        pipeline.shutdown().await.expect("a clean stop");
        assert!(!lines.lines().iter().any(|line| line.message.contains("partitions")));
    }
}

#[actix::test]
async fn with_stop_the_relay_stops_until_the_change_is_accepted_and_nothing_is_lost() {
    for mode in MODES {
        let (mut bed, topic) = bed("stops", mode, PartitionsAdded::Stop).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        emit(&bed, &facts(0..100)).await;
        records(&bed, &topic, 100).await;
        bed.confirmed(bed.wal_end().await).await;
        add_partitions(&bed, &topic, 4).await;
        let refusal = "has 4 partitions and had 2, so most aggregates would move";
        let began = Instant::now();
        let mut sent = 100;
        let ended = async {
            loop {
                emit(&bed, &facts(sent..sent + 10)).await;
                sent += 10;
                if let Ok(ended) = timeout(Duration::from_millis(300), pipeline.wait()).await {
                    return ended.expect_err("it stops").to_string();
                }
                assert!(began.elapsed() < LIMIT, "it does not stop");
            }
        };
        let error = ended.await;
        assert!(error.contains(refusal) && error.contains("\"drain\""), "{error}");
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let again = timeout(LIMIT, pipeline.wait()).await.expect("in time").expect_err("it stops");
        assert!(again.to_string().contains(refusal), "{again}");
        for record in read_topic(&bed.kafka.bootstrap(), &topic).await.expect("records") {
            assert!(record.partition < 2, "{record:?}");
        }
        bed.config.kafka.on_partitions_added = PartitionsAdded::Drain;
        let (log, lines) = CollectedLogs::logger();
        let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
        said(&lines, USED).await;
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
        let mut numbers: Vec<usize> = Vec::new();
        for record in read_topic(&bed.kafka.bootstrap(), &topic).await.expect("records") {
            let number = record.header("event_type").expect("a type");
            numbers.push(std::str::from_utf8(number).expect("text").parse().expect("a number"));
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "nothing is lost");
    }
}

#[actix::test]
async fn with_warn_added_partitions_are_used_at_once() {
    let (bed, topic) = bed("warns", DeliveryMode::AtLeastOnce, PartitionsAdded::Warn).await;
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    emit(&bed, &facts(0..100)).await;
    records(&bed, &topic, 100).await;
    add_partitions(&bed, &topic, 4).await;
    said(&lines, "partitions of a topic have changed").await;
    emit(&bed, &facts(100..200)).await;
    for record in records(&bed, &topic, 200).await.iter().filter(|record| record.partition > 1) {
        let key = record.key.as_deref().expect("a key");
        assert_eq!(record.partition, partitioner::of_key(key, 4));
    }
    pipeline.shutdown().await.expect("a clean stop");
    assert!(!lines.lines().iter().any(|line| line.message == USED));
}
