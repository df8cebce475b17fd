//! Held against the history: each topic of a fan-out has all, once, and in order.

use bytesize::ByteSize;
use factlib::{
    config::Route,
    testing::{KafkaServer, read_topic, shared_postgres, topic_names, wait_for_count},
};

use crate::{
    route,
    support::{Bed, History, Workload, bed::LIMIT, bed::PARTITIONS, history::Checker},
};

/// Waits until the topics under a prefix have all of the history.
async fn delivered(bed: &Bed<'_>, prefix: &str, history: &History) {
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
        Route { drop: true, ..route("noise*", &[]) },
        route("/^(?<kind>user|order)$/", &["{prefix}.{kind}", &copied]),
        // invoices go where events usually go
    ];
    // Two records of an event are more than the window, and librdkafka gets no more.
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
