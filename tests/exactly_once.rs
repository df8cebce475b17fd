//! Exactly once: a consumer with `read_committed` sees each fact once, whatever crashes.

mod support;

use std::{collections::HashSet, time::Duration};

use factlib::{config::DeliveryMode, testing::read_topic};
use support::{Bed, Workload};

async fn bed(name: &str) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.config.delivery.mode = DeliveryMode::ExactlyOnce;
    bed.config.pipeline.restart_backoff = Duration::from_millis(50);
    bed
}

#[actix::test]
async fn each_fact_comes_once_and_the_position_is_in_kafka_with_it() {
    let bed = bed("exactly").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let history = Workload { ..Workload::new(&bed.name, 5_000) }.emit(&mut client).await;
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    assert!(pipeline.status().transactions > 0);
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");

    let positions = read_topic(&bed.kafka.bootstrap(), &bed.config.position_topic()).await;
    let positions = positions.expect("a readable topic");
    let keys: HashSet<_> = positions.iter().map(|position| position.key.clone()).collect();
    assert_eq!(keys.len(), 1, "one slot of one cluster");
    let last = positions.last().and_then(|position| position.value.clone()).expect("a position");
    let last: serde_json::Value = serde_json::from_slice(&last).expect("JSON");
    assert_eq!(last["slot"], bed.name.as_str());
}
