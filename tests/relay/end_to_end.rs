//! The main job on the real servers: committed facts arrive in Kafka, once, in
//! order, in their right place; rolled-back ones do not; a stop repeats nothing.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use factlib::{
    Result,
    checkpoint::{Checkpoint, CheckpointStore, MemoryStore},
    testing::{KafkaServer, PostgresServer},
};
use tokio_postgres::Client;

use crate::support::{Bed, Workload, bed::LIMIT};

#[actix::test]
async fn committed_facts_arrive_once_and_in_order_and_a_clean_stop_repeats_nothing() {
    // Servers of its own: the position of an idle server is a part of it.
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, &kafka, "e2e").await;
    let mut client = bed.client().await;
    Workload::create_table(&client).await;

    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let workload = Workload {
        aggregates: 500,
        transaction: 1..=50,
        rollback_every: 10,
        other_writes: true,
        ..Workload::new(&bed.name, 20_000)
    };
    let mut history = workload.emit(&mut client).await;
    assert!(history.rolled_back_len() > 500, "{}", history.rolled_back_len());
    bed.delivered(&history).await;

    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    let (confirmed, active) = bed.slot().await;
    assert!(!active, "the slot is free after a clean stop");

    // What is emitted meanwhile waits; what was delivered is not sent again.
    let second = Workload { seed: 2, aggregate_types: vec!["shipment".into()], ..workload.clone() };
    let second = Workload { facts: 1_000, ..second };
    let meanwhile = second.emit(&mut client).await;
    assert_eq!(bed.slot().await.0, confirmed);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts again");
    bed.delivered(&meanwhile).await;
    history.merge(meanwhile);

    // Idle, it confirms everything up to the end of the WAL.
    let end = bed.wal_end().await;
    bed.confirmed(end).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_foreign_transaction_alone_moves_the_position() {
    let bed = Bed::shared("foreign").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let client = bed.client().await;
    Workload::create_table(&client).await;
    client
        .batch_execute(
            "INSERT INTO app (note) SELECT repeat('x', 100) FROM generate_series(1, 10000)",
        )
        .await
        .expect("rows of another table");
    let end = bed.wal_end().await;
    bed.confirmed(end).await;
    assert_eq!(pipeline.status().events, 0);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_transaction_larger_than_the_window_passes() {
    let mut bed = Bed::shared("large").await;
    bed.config.pipeline.window = bytesize::ByteSize::kib(256);
    bed.config.pipeline.batch = bytesize::ByteSize::kib(16);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let workload = Workload {
        transaction: 20_000..=20_000,
        rollback_every: 2,
        ..Workload::new(&bed.name, 20_000)
    };
    let history = workload.emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_message_larger_than_the_window_passes_alone() {
    let mut bed = Bed::shared("huge").await;
    bed.config.pipeline.window = bytesize::ByteSize::kib(256);
    bed.config.pipeline.batch = bytesize::ByteSize::kib(16);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let workload =
        Workload { transaction: 1..=3, padding: 700_000, ..Workload::new(&bed.name, 30) };
    let history = workload.emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    assert!(pipeline.status().window_bytes == 256 * 1024);
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn two_pipelines_run_in_one_process() {
    let (one, two) = (Bed::shared("one").await, Bed::shared("two").await);
    let first = one.pipeline().start().await.expect("the first starts");
    let second = two.pipeline().start().await.expect("the second starts");
    let of_one = Workload::new(&one.name, 500).emit(&mut one.client().await).await;
    let of_two = Workload::new(&two.name, 500).emit(&mut two.client().await).await;
    one.delivered(&of_one).await;
    two.delivered(&of_two).await;
    first.shutdown().await.expect("a clean stop");
    assert_eq!(second.status().state, factlib::PipelineState::Running);
    second.shutdown().await.expect("a clean stop");
    for (bed, history) in [(one, of_one), (two, of_two)] {
        let report = bed.check(&history).await;
        assert!(report.is_clean() && report.duplicates == 0, "{report}");
    }
}

#[actix::test]
async fn a_second_instance_stands_by_and_takes_over() {
    let bed = Bed::shared("standby").await;
    let first = bed.pipeline().start().await.expect("the first starts");
    let (log, logs) = factlib::testing::CollectedLogs::logger();
    let second = bed.pipeline().as_another_process().logger(log).start();
    let second = tokio::time::timeout(LIMIT, second).await.expect("in time");
    let second = second.expect("it stands by");
    let line = logs.await_line(|line| line.values.iter().any(|(_, v)| v.contains("active")), LIMIT);
    assert!(line.await.is_some(), "it says that the slot is in use: {:?}", logs.lines());

    let history = Workload::new(&bed.name, 200).emit(&mut bed.client().await).await;
    first.shutdown().await.expect("a clean stop");
    let running = tokio::time::timeout(Duration::from_secs(60), second.running()).await;
    running.expect("in time").expect("the second takes over");
    bed.delivered(&history).await;
    second.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// A store in which another instance moves on, and its slot with it, just behind a load.
struct Overtaken {
    store: MemoryStore,
    client: Client,
}

#[async_trait]
impl CheckpointStore for Overtaken {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        let loaded = self.store.load(slot).await?;
        let advance = "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn())
            FROM pg_replication_slots WHERE slot_name = $1";
        self.client.query(advance, &[&slot]).await.expect("it moves on");
        Ok(loaded)
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.store.save(checkpoint).await
    }

    async fn remove(&self, slot: &str) -> Result<()> {
        self.store.remove(slot).await
    }

    fn describe(&self) -> String {
        "overtaken".into()
    }
}

#[actix::test]
async fn a_position_that_another_instance_moves_meanwhile_is_no_refusal() {
    let bed = Bed::shared("overtaken").await;
    let store = Overtaken { store: MemoryStore::default(), client: bed.client().await };
    let store: Arc<dyn CheckpointStore> = Arc::new(store);
    let start = || bed.pipeline().store(Arc::clone(&store)).start();
    let first = start().await.expect("the first starts");
    let mut history = Workload::new(&bed.name, 10).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    first.shutdown().await.expect("a clean stop");
    let others = "SELECT pg_logical_emit_message(true, 'none of ours', 'x')";
    bed.client().await.execute(others, &[]).await.expect("the WAL goes on");

    let second = start().await.expect("it is not refused");
    let aggregate_types = vec!["shipment".into()];
    let after = Workload { seed: 2, aggregate_types, ..Workload::new(&bed.name, 10) };
    history.merge(after.emit(&mut bed.client().await).await);
    bed.delivered(&history).await;
    second.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
