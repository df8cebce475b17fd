//! Two instances on one slot: the one is killed, the other takes over.

use std::time::{Duration, Instant};

use crate::{
    launch,
    secrets::{free_port, get},
    support::{Bed, Workload, bed::LIMIT, emitters::Emitters},
};

/// What a takeover may take on a machine under load; it waits for nothing longer than the
/// standby's pause of half a second.
const SOON: Duration = Duration::from_secs(15);

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("{what}: never"));
}

#[tokio::test]
async fn a_standby_takes_over_from_an_instance_that_is_killed() {
    let bed = Bed::shared("takeover").await;
    let launch = launch(&bed).set("pipeline.window", "1MiB").set("pipeline.batch", "64KiB");
    let port = free_port();
    let first = launch.start().await;
    let second = launch.clone().set("http.metrics_port", port.to_string()).spawn();
    let stands_by = async || get(port, "/status.json").await.contains("\"standing_by\"");
    second.says("is active for PID").await;
    until("the second stands by", stands_by).await;

    let workload = Workload::new(&bed.name, usize::MAX);
    let emitters = Emitters::start(&bed, &workload, 2, 1_000).await;
    emitters.emitted(1_000).await;
    assert!(stands_by().await, "it goes on standing by");
    let said = second.count("standing by");
    assert_eq!(said, 1, "which is no news each time");
    // Nor a failure: an alert on these would never end.
    let metrics = get(port, "/metrics").await;
    let errors =
        metrics.lines().find(|line| line.starts_with("factlib_wal_replication_errors_total"));
    assert_eq!(errors, Some("factlib_wal_replication_errors_total 0"), "{metrics}");
    first.kill().await;
    let (killed, end) = (Instant::now(), bed.wal_end().await);
    let saved = bed.saved().await.expect("a position");
    second.says("relay running").await;
    bed.confirmed(end).await;
    let took = killed.elapsed();
    println!("relayed again {took:.1?} after the kill");
    assert!(took < SOON, "{took:?}");

    emitters.emitted(emitters.count() + 500).await;
    let history = emitters.stop().await;
    let most = bed.records_behind(saved).await;
    let report = second.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates <= most, "{report}, at most {most}");
}
