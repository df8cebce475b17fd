//! A slot that PostgreSQL 18 invalidates because nobody reads it.

use std::time::Duration;

use factlib::{
    ErrorKind, doctor, setup, slot,
    testing::{PostgresServer, shared_kafka},
};
use slog::{Discard, Logger, o};
use tokio::time::sleep;

use crate::support::{Bed, Workload};

#[actix::test]
async fn a_slot_that_was_idle_for_too_long_is_named_before_and_after() {
    let server = PostgresServer::builder().version(18);
    let server = server.setting("idle_replication_slot_timeout", "1s").start().await;
    let server = server.expect("PostgreSQL starts");
    let bed = Bed::on(&server, shared_kafka().await.expect("Kafka starts"), "idle").await;
    let log = Logger::root(Discard, o!());
    setup(&bed.config, false, &log).await.expect("it is set up");
    let report = doctor::examine(&bed.config, &log).await.expect("a report");
    assert!(format!("{report:?}").contains("stopped for 1 s loses its slot"), "{report:?}");
    let shown = slot::show(&bed.config, &log).await.expect("an answer").expect("a slot");
    assert_eq!((shown.idle_timeout_seconds, shown.lost), (Some(1), None));

    // A checkpoint judges, from a second of idleness on.
    sleep(Duration::from_millis(2_100)).await;
    server.execute("postgres", "CHECKPOINT").await.expect("a checkpoint");
    let error = bed.pipeline().start().await.expect_err("the slot is lost");
    assert_eq!(error.kind(), ErrorKind::PositionLost);
    let text = error.to_string();
    for part in ["idle_timeout: nobody read it", "idle_replication_slot_timeout = 0", "a new slot"]
    {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let report = setup(&bed.config, true, &log).await.expect("a new slot");
    assert!(report.slot_created, "{report}");
    assert!(report.to_string().contains("in place of the invalidated one (idle_timeout)"));
    let pipeline = bed.pipeline().start().await.expect("it starts");
    let history = Workload::new(&bed.name, 20).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
}
