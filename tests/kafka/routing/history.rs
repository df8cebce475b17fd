//! Held against the history: whatever a route makes of events, all are there, once, and in
//! order.

use bytesize::ByteSize;
use factlib::{
    ErrorKind,
    config::{Route, Unrouted},
    testing::{
        ConsumedRecord, KafkaServer, read_topic, shared_postgres, topic_names, wait_for_count,
    },
};

use super::route;
use crate::support::{
    Bed, History, Report, Workload, bed::LIMIT, bed::PARTITIONS, history::Checker,
};

/// Waits until the topics under a prefix have all of the history.
pub async fn delivered(bed: &Bed<'_>, prefix: &str, history: &History) {
    let topics = history.aggregate_types().into_iter().map(|kind| format!("{prefix}.{kind}"));
    let topics: Vec<_> = topics.collect();
    let names: Vec<_> = topics.iter().map(String::as_str).collect();
    let bootstrap = bed.kafka.admin_bootstrap();
    wait_for_count(&bootstrap, &names, history.len(), LIMIT).await.expect("all arrive");
}

/// Everything under a prefix, held against the history.
async fn check(bed: &Bed<'_>, prefix: &str, history: &History) {
    let bootstrap = bed.kafka.admin_bootstrap();
    let mut checker = Checker::new(history, prefix, Some(PARTITIONS));
    checker.confirmed(bed.slot().await.0);
    for kind in history.aggregate_types() {
        let topic = format!("{prefix}.{kind}");
        let records = read_topic(&bootstrap, &topic).await.expect("a topic");
        records.iter().for_each(|record| checker.record(record));
    }
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{prefix}: {report}");
}

#[actix::test]
async fn fan_out_and_filter_lose_nothing_and_keep_the_order_through_a_killed_broker() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let mut bed = Bed::on(postgres, &kafka, "fan_out").await;
    let copy = format!("{}-copy", bed.name);
    let copied = format!("{copy}.{{aggregate_type}}");
    bed.config.route = vec![
        Route::of("noise*").dropped(),
        route("/^(?<kind>user|order)$/", &["{prefix}.{kind}", &copied]),
        // invoices go where events usually go
    ];
    // The records of the events in flight are more bytes than the window.
    bed.config.pipeline.batch = ByteSize::kib(32);
    bed.config.pipeline.window = ByteSize::kib(64);
    let mut client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let of = |seed, kinds: &[&str], prefix| Workload {
        seed,
        aggregate_prefix: prefix,
        aggregate_types: kinds.iter().map(|kind| kind.to_string()).collect(),
        ..Workload::new(&bed.name, 400)
    };
    let (mut routed, mut usual, mut dropped) =
        (History::default(), History::default(), History::default());
    for (round, prefix) in ["a", "b", "c"].into_iter().enumerate() {
        let seed = round as u64;
        routed.merge(of(seed, &["user", "order"], prefix).emit(&mut client).await);
        usual.merge(of(seed + 10, &["invoice"], prefix).emit(&mut client).await);
        dropped.merge(of(seed + 20, &["noise1", "noise2"], prefix).emit(&mut client).await);
        match round {
            0 => {
                delivered(&bed, &bed.name, &routed).await;
                kafka.kill(1).await.expect("killed");
            }
            1 => kafka.start_again(1).await.expect("it is back"),
            _ => {}
        }
    }
    for prefix in [&bed.name, &copy] {
        delivered(&bed, prefix, &routed).await;
    }
    delivered(&bed, &bed.name, &usual).await;
    bed.confirmed(bed.wal_end().await).await;
    let status = pipeline.status();
    assert_eq!(status.events_filtered, dropped.len() as u64);
    assert_eq!(status.events, (2 * routed.len() + usual.len()) as u64, "records, not events");
    assert_eq!(status.events_read, (routed.len() + usual.len() + dropped.len()) as u64);
    pipeline.shutdown().await.expect("a clean stop");
    check(&bed, &bed.name, &routed).await;
    check(&bed, &copy, &routed).await;
    check(&bed, &bed.name, &usual).await;
    let names = topic_names(&kafka.admin_bootstrap()).await.expect("names");
    assert!(!names.iter().any(|name| name.contains("noise") || name == &format!("{copy}.invoice")));
}

/// All of a topic, each record changed back to what it would be without its route.
async fn restored(
    bed: &Bed<'_>,
    topic: String,
    history: &History,
    partitions: Option<i32>,
    mut restore: impl FnMut(&mut ConsumedRecord),
) -> Report {
    let mut checker = Checker::new(history, &bed.name, partitions);
    checker.confirmed(bed.slot().await.0);
    for mut record in read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("a topic") {
        restore(&mut record);
        checker.record(&record);
    }
    checker.report()
}

fn of(bed: &Bed<'_>, seed: u64, kind: &str) -> Workload {
    Workload { seed, aggregate_types: vec![kind.into()], ..Workload::new(&bed.name, 150) }
}

#[actix::test]
async fn key_partition_headers_and_tombstones_lose_nothing_and_keep_the_order() {
    let mut bed = Bed::shared("changed").await;
    bed.config.route = vec![
        Route::of("user").key("{aggregate_type}/{aggregate_id}"),
        Route::of("order").partition("3"),
        Route::of("invoice").header("of", "{aggregate_id}"),
        Route::of("gone").tombstone(),
    ];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let (mut client, mut all) = (bed.client().await, Vec::new());
    for (seed, kind) in ["user", "order", "invoice", "gone"].into_iter().enumerate() {
        all.push(of(&bed, seed as u64, kind).emit(&mut client).await);
    }
    for history in &all {
        bed.delivered(history).await;
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let topic = |kind: &str| format!("{}.{kind}", bed.name);
    let keyed = restored(&bed, topic("user"), &all[0], None, |record| {
        let key = record.key.as_mut().expect("a key");
        assert_eq!(&key.split_to(5)[..], b"user/");
    });
    let placed = restored(&bed, topic("order"), &all[1], None, |record| {
        assert_eq!(record.partition, 3);
    });
    let headed = restored(&bed, topic("invoice"), &all[2], Some(PARTITIONS), |record| {
        let (name, of) = record.headers.pop().expect("a header");
        assert_eq!((name.as_str(), Some(&of)), ("of", record.key.as_ref()));
    });
    for report in [keyed.await, placed.await, headed.await] {
        assert!(report.is_clean() && report.duplicates == 0, "{report}");
    }
    let gone = restored(&bed, topic("gone"), &all[3], Some(PARTITIONS), |record| {
        assert_eq!(record.value, None);
    });
    // Nothing can be said of a value that is not there.
    let gone = gone.await;
    let wrong = (gone.lost, gone.phantom, gone.order_violations, gone.duplicates);
    assert_eq!((wrong, gone.altered), ((0, 0, 0, 0), all[3].len() as u64), "{gone}");
}

#[actix::test]
async fn what_no_route_takes_is_parked_ignored_or_kept_for_a_route_and_never_lost() {
    let mut bed = Bed::shared("no_route").await;
    bed.config.route = vec![route("user", &[])];
    let (mut client, topic) = (bed.client().await, format!("{}.order", bed.name));

    bed.config.kafka.unrouted = Unrouted::DeadLetter;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut users = of(&bed, 1, "user").emit(&mut client).await;
    let parked = of(&bed, 2, "order").emit(&mut client).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let letters = bed.config.dead_letter_topic();
    let report = restored(&bed, letters, &parked, Some(PARTITIONS), |letter| {
        letter.topic.clone_from(&topic);
        letter.headers.retain(|(name, _)| !name.starts_with("dead_letter_"));
    });
    let report = report.await;
    assert!(report.is_clean() && report.duplicates == 0, "parked: {report}");

    bed.config.kafka.unrouted = Unrouted::Ignore;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let ignored = of(&bed, 3, "order").emit(&mut client).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().events_filtered, ignored.len() as u64);
    pipeline.shutdown().await.expect("a clean stop");
    let names = topic_names(&bed.kafka.admin_bootstrap()).await.expect("names");
    assert!(!names.contains(&topic), "nothing went where it usually goes");

    bed.config.kafka.unrouted = Unrouted::Stop;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let more = Workload { aggregate_prefix: "more-", ..of(&bed, 4, "user") };
    users.merge(more.emit(&mut client).await);
    let kept = of(&bed, 5, "order").emit(&mut client).await;
    let ended = tokio::time::timeout(LIMIT, pipeline.wait()).await.expect("it ends");
    assert_eq!(ended.expect_err("with an error").kind(), ErrorKind::RecordRefused);
    drop(pipeline);
    bed.config.route.push(route("order", &[]));
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    bed.delivered(&kept).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    for (kind, history) in [("user", &users), ("order", &kept)] {
        let topic = format!("{}.{kind}", bed.name);
        let report = restored(&bed, topic, history, Some(PARTITIONS), |_| {}).await;
        // What was on its way when it stopped may come again.
        assert!(report.is_clean(), "{kind}: {report}");
    }
}
