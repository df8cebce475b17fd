//! Statements of ours that wait for others: they are cancelled when they are given up, and the
//! error names whom they waited for.

use std::time::Duration;

use factlib::{
    doctor::{self, CheckOutcome},
    testing::{CollectedLogs, PostgresServer, shared_kafka},
};
use slog::{Discard, Logger, o};
use tokio::time::sleep;

use super::{relayed, says};
use crate::support::{Bed, History, bed::LIMIT};

const FAILED: &str = "cannot save the position, trying again";

/// Processes of the relay that wait for somebody, in this database.
async fn waiting(bed: &Bed<'_>) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1
        AND application_name = 'factlib' AND state = 'active'
        AND (wait_event_type = 'Lock' OR wait_event = 'SyncRep')";
    bed.client().await.query_one(query, &[&bed.database]).await.expect("a count").get(0)
}

#[actix::test]
async fn a_locked_checkpoint_table_is_named_with_its_owner_and_one_process_waits() {
    let mut bed = Bed::shared("locked").await;
    bed.config.postgres.connect_timeout = Duration::from_secs(1);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;
    bed.confirmed(bed.wal_end().await).await;

    let mut holder = bed.client().await;
    let row = holder.query_one("SELECT pg_backend_pid()", &[]).await.expect("a pid");
    let pid: i32 = row.get(0);
    let transaction = holder.transaction().await.expect("a transaction");
    transaction.batch_execute("LOCK TABLE factlib.checkpoints").await.expect("locked");
    relayed(&bed, "while", &mut history).await;
    let waits_for = format!("because it waits for PID {pid} (user postgres");
    let remedy = format!("SELECT pg_terminate_backend({pid})");
    let line = says(&logs, FAILED, &[&waits_for, &remedy]).await;
    let failures = |line: &factlib::testing::LogLine| -> u64 {
        line.value("failures").and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let first = failures(&line);
    let mut most = 0;
    let fourth =
        |line: &factlib::testing::LogLine| line.message == FAILED && failures(line) >= first + 3;
    while !logs.lines().iter().any(fourth) {
        most = most.max(waiting(&bed).await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(most, 1, "what is given up is cancelled");

    let report = doctor::examine(&bed.config, &Logger::root(Discard, o!())).await;
    let report = report.expect("a report");
    let check = report.checks.iter().find(|check| check.name == "checkpoint store");
    let check = check.expect("it is looked at");
    assert_eq!(check.outcome, CheckOutcome::Error, "{check:?}");
    assert!(check.found.contains(&waits_for), "{check:?}");
    assert!(check.remedy.as_ref().is_some_and(|text| text.contains(&remedy)), "{check:?}");

    transaction.rollback().await.expect("the lock is gone");
    says(&logs, "checkpoint store is back", &[]).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_synchronous_standby_that_does_not_answer_is_named() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, kafka, "standby").await;
    bed.config.postgres.connect_timeout = Duration::from_secs(1);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;

    postgres.set("synchronous_standby_names", "nobody").expect("set");
    postgres.reload().await.expect("reloaded");
    relayed(&bed, "while", &mut history).await;
    let waits_for = "because it waits for a synchronous standby";
    says(&logs, FAILED, &[waits_for, "synchronous_standby_names"]).await;
    for _ in 0..50 {
        assert!(waiting(&bed).await <= 1);
        sleep(Duration::from_millis(20)).await;
    }
    postgres.set("synchronous_standby_names", "").expect("set");
    postgres.reload().await.expect("reloaded");
    says(&logs, "checkpoint store is back", &[]).await;
    tokio::time::timeout(LIMIT, pipeline.shutdown()).await.expect("in time").expect("clean");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
