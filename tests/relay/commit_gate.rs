//! The gate before delivery: an event waits for standbys, and until others see its transaction.

use std::time::Duration;

use bytesize::ByteSize;
use factlib::{
    BlockedBy, ErrorKind, PipelineHandle, PipelineStatus,
    config::{Config, StoreKind, WaitForStandbys},
    setup,
    testing::{CollectedLogs, PostgresServer, shared_kafka},
};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{Bed, History, Workload, bed::LIMIT};

/// A physical slot in place of a standby: its position is what a standby would have flushed.
struct StandbySlot<'a, 'b> {
    bed: &'a Bed<'b>,
    name: String,
}

impl<'a, 'b> StandbySlot<'a, 'b> {
    /// The name that [`create`](Self::create) will use.
    fn name(bed: &Bed<'_>) -> String {
        format!("{}_standby", bed.name)
    }

    async fn create(bed: &'a Bed<'b>) -> Self {
        let slot = StandbySlot { bed, name: Self::name(bed) };
        slot.run("SELECT pg_create_physical_replication_slot($1, true)").await;
        slot
    }

    /// Flushes all that there is now.
    async fn catch_up(&self) {
        self.run("SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())").await;
    }

    /// Flushes all that there is, again and again, until `done`: the relay's own writes move the end.
    async fn follow_until<T>(&self, done: impl Future<Output = T>) -> T {
        let following = async {
            loop {
                self.catch_up().await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            done = done => done,
            () = following => unreachable!("it follows for ever"),
        }
    }

    async fn drop(self) {
        self.run("SELECT pg_drop_replication_slot($1)").await;
    }

    async fn run(&self, query: &str) {
        self.bed.client().await.execute(query, &[&self.name]).await.expect("the slot is there");
    }
}

fn waits_for_slot(config: &mut Config, name: String) {
    config.delivery.wait_for_standbys = WaitForStandbys::Named(vec![name]);
}

async fn until(pipeline: &PipelineHandle, is: impl Fn(&PipelineStatus) -> bool) -> PipelineStatus {
    let waiting = async {
        while !is(&pipeline.status()) {
            sleep(Duration::from_millis(20)).await;
        }
        pipeline.status()
    };
    let done = timeout(LIMIT, waiting).await;
    done.unwrap_or_else(|_| panic!("it does not come: {:?}", pipeline.status()))
}

fn is_held(status: &PipelineStatus, condition: &str) -> bool {
    status.gate_bytes > 0
        && status.gate_waits_for.as_ref().is_some_and(|text| text.starts_with(condition))
}

async fn delivered_records(bed: &Bed<'_>) -> usize {
    let mut records = 0;
    bed.each_record(|_| records += 1).await;
    records
}

async fn emit(bed: &Bed<'_>, seed: u64, prefix: &'static str, facts: usize) -> History {
    let workload = Workload { seed, aggregate_prefix: prefix, ..Workload::new(&bed.name, facts) };
    workload.emit(&mut bed.client().await).await
}

#[actix::test]
async fn events_wait_until_a_standby_has_flushed_their_commits() {
    let mut bed = Bed::shared("gate").await;
    let name = StandbySlot::name(&bed);
    waits_for_slot(&mut bed.config, name.clone());
    bed.config.pipeline.window = ByteSize::kib(256);
    bed.config.pipeline.batch = ByteSize::kib(16);
    let standby = StandbySlot::create(&bed).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let condition = format!("standby {name:?} to flush ");

    let mut history = emit(&bed, 1, "a", 20).await;
    let committed = bed.wal_end().await;
    let status = until(&pipeline, |status| is_held(status, &condition)).await;
    let gate = status.actors.get("commit_gate").expect("there is one");
    assert_eq!(gate.blocked_by, Some(BlockedBy::Standby), "{status:?}");
    standby.follow_until(bed.delivered(&history)).await;
    standby.follow_until(bed.confirmed(committed)).await;

    let before = history.len();
    // Much more than the window holds, the last of it in one transaction.
    history.merge(emit(&bed, 2, "b", 3_000).await);
    let large = Workload {
        seed: 3,
        aggregate_prefix: "c",
        transaction: 3_000..=3_000,
        rollback_every: 0,
        ..Workload::new(&bed.name, 3_000)
    };
    history.merge(large.emit(&mut bed.client().await).await);
    let is_full = |status: &PipelineStatus| {
        let reader = status.actors.get("wal_reader").and_then(|actor| actor.blocked_by);
        is_held(status, &condition) && reader == Some(BlockedBy::Window)
    };
    let status = until(&pipeline, is_full).await;
    assert!(status.gate_bytes as usize <= status.window_bytes, "{status:?}");
    assert_eq!(delivered_records(&bed).await, before, "nothing passes");
    standby.follow_until(bed.delivered(&history)).await;

    let end = bed.wal_end().await;
    standby.follow_until(bed.confirmed(end)).await;

    // What is held at the end is not lost: the next start reads it again.
    history.merge(emit(&bed, 4, "d", 10).await);
    until(&pipeline, |status| is_held(status, &condition)).await;
    drop(pipeline);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    until(&pipeline, |status| is_held(status, &condition)).await;
    standby.follow_until(bed.delivered(&history)).await;
    standby.follow_until(pipeline.shutdown()).await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    standby.drop().await;
}

#[actix::test]
async fn a_standby_that_stays_away_is_waited_for_no_longer_than_allowed() {
    let mut bed = Bed::shared("gate_timeout").await;
    let name = StandbySlot::name(&bed);
    waits_for_slot(&mut bed.config, name.clone());
    bed.config.delivery.standby_timeout = Some(Duration::from_secs(1));
    let standby = StandbySlot::create(&bed).await;
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let mut history = emit(&bed, 1, "a", 20).await;
    bed.delivered(&history).await;
    let said = async |message: &str| {
        let line = lines.await_line(|line| line.message.starts_with(message), LIMIT).await;
        let line = line.unwrap_or_else(|| panic!("it never said {message:?}"));
        assert_eq!(line.value("standby"), Some(&*format!("standby {name:?}")), "{line}");
    };
    said("events go on without a standby").await;
    history.merge(emit(&bed, 2, "b", 20).await);
    bed.delivered(&history).await;
    let back = async {
        history.merge(emit(&bed, 3, "c", 20).await);
        bed.delivered(&history).await;
        said("a standby has caught up").await;
    };
    standby.follow_until(back).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    standby.drop().await;
}

#[actix::test]
async fn a_user_that_may_not_see_the_standbys_is_refused_with_the_grant() {
    let mut bed = Bed::shared("gate_refused").await;
    let user = format!("{}_user", bed.name);
    let create = format!("CREATE ROLE {user} LOGIN REPLICATION");
    bed.client().await.batch_execute(&create).await.expect("a role");
    bed.config.postgres.url =
        bed.postgres.url_for(&bed.name).replace("postgres@", &format!("{user}@")).into();
    bed.config.delivery.wait_for_standbys = WaitForStandbys::Any(1);
    let error = bed.pipeline().start().await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
    let expected = format!("{user} may not see what standbys have flushed");
    assert!(error.to_string().contains(&expected), "{error}");
    let remedy = format!("GRANT pg_read_all_stats TO \"{user}\"");
    assert!(error.advice().is_some_and(|advice| advice.contains(&remedy)), "{error}");
}

#[actix::test]
async fn a_connected_standby_counts_and_a_commit_without_an_answer_is_not_sent() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, kafka, "invisible").await;
    let standby = postgres.standby("standby_a").start().await.expect("a standby");
    let folder = tempfile::tempdir().expect("a folder");
    // A position in the database would wait for the same standby.
    bed.config.checkpoint.store = StoreKind::File;
    bed.config.checkpoint.path = folder.path().join("checkpoint");
    setup(&bed.config, false, &Logger::root(Discard, o!())).await.expect("a slot");

    bed.config.delivery.wait_for_standbys = WaitForStandbys::Any(1);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut history = emit(&bed, 1, "a", 10).await;
    bed.delivered(&history).await;
    standby.pause_receipt().await.expect("it pauses");
    history.merge(emit(&bed, 2, "b", 10).await);
    until(&pipeline, |status| is_held(status, "standby 1 of any 1 to flush ")).await;
    standby.resume_receipt().await.expect("it goes on");
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");

    // With synchronous replication, it waits without a setting.
    bed.config.delivery.wait_for_standbys = WaitForStandbys::default();
    postgres.set("synchronous_standby_names", "standby_a").expect("it is set");
    postgres.reload().await.expect("it is read");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    history.merge(emit(&bed, 3, "c", 10).await);
    bed.delivered(&history).await;
    standby.pause_receipt().await.expect("it pauses");
    let before = history.len();
    let committing = emit(&bed, 4, "d", 1);
    let watching = async {
        let status = until(&pipeline, |status| is_held(status, "transaction ")).await;
        let gate = status.actors.get("commit_gate").expect("there is one");
        assert_eq!(gate.blocked_by, Some(BlockedBy::Visibility), "{status:?}");
        assert_eq!(delivered_records(&bed).await, before);
        standby.resume_receipt().await.expect("it goes on");
    };
    let (committed, ()) = tokio::join!(committing, watching);
    history.merge(committed);
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
