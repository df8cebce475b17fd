//! The replication connection is lost under load, again and again, and the relay
//! lives on: nothing that it had read comes twice.

use std::time::Duration;

use bytesize::ByteSize;

use crate::support::{Bed, Workload, bed::LIMIT};

/// How often the connection is ended.
const ENDS: u64 = 8;

/// Ends the walsender while a backlog of transactions of this size is worked off.
async fn repeats_nothing(transaction: std::ops::RangeInclusive<usize>) {
    let mut bed = Bed::shared("reconnection").await;
    bed.config.pipeline.window = ByteSize::kib(256);
    bed.config.pipeline.batch = ByteSize::kib(8);
    bed.config.pipeline.restart_backoff = Duration::from_millis(10);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let first = Workload { facts: 1, ..Workload::new(&bed.name, 1) };
    let mut history = first.emit(&mut client).await;
    bed.delivered(&history).await;

    let workload = Workload {
        seed: 2,
        aggregate_prefix: "later-",
        transaction,
        ..Workload::new(&bed.name, 12_000)
    };
    let (admin, name) = (bed.client().await, bed.name.clone());
    let ending = async {
        for n in 1..=ENDS {
            // In the middle of it: something was read since the connection was made.
            let read = pipeline.status().events_read;
            until(|| pipeline.status().events_read > read).await;
            admin.execute(TERMINATE, &[&name]).await.expect("the walsender is ended");
            until(|| pipeline.status().generation > n).await;
        }
    };
    let (more, ()) = tokio::join!(workload.emit(&mut client), ending);
    history.merge(more);
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    let status = pipeline.status();
    assert!(status.generation > ENDS, "{status:?}");
    pipeline.shutdown().await.expect("a clean stop");

    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

const TERMINATE: &str = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots \
                         WHERE slot_name = $1 AND active_pid IS NOT NULL";

/// Nothing signals what a counter has come to.
async fn until(reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("it gets there");
}

#[actix::test]
async fn of_single_facts() {
    repeats_nothing(1..=1).await;
}

#[actix::test]
async fn of_transactions_that_are_half_read() {
    repeats_nothing(300..=600).await;
}

#[actix::test]
async fn a_question_that_is_not_answered_is_given_up_and_asked_again() {
    let mut bed = Bed::shared("unanswered").await;
    bed.config.postgres.connect_timeout = Duration::from_secs(1);
    // Whoever asks for the publication waits for this.
    let mut blocking = bed.client().await;
    let transaction = blocking.transaction().await.expect("a transaction");
    transaction.batch_execute("LOCK TABLE pg_catalog.pg_publication").await.expect("locked");
    let (log, logs) = factlib::testing::CollectedLogs::logger();
    let starting = actix_rt::spawn(bed.pipeline().logger(log).start());
    let silent = |line: &factlib::testing::LogLine| {
        line.values.iter().any(|(_, value)| value.contains("does not answer for the publication"))
    };
    assert!(logs.await_line(silent, LIMIT).await.is_some(), "{:?}", logs.lines());
    transaction.rollback().await.expect("the lock is gone");
    let started = tokio::time::timeout(LIMIT, starting).await.expect("in time");
    let pipeline = started.expect("no panic").expect("the pipeline starts");
    pipeline.shutdown().await.expect("a clean stop");
}
