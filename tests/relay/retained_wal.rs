//! WAL that the server has to keep for us is a warning before its disk is full, and
//! says what it is kept for.

use std::time::Duration;

use bytesize::ByteSize;
use factlib::{
    BlockedBy, Lag, PipelineHandle,
    testing::{CollectedLogs, KafkaServer, LogLine, PostgresServer, shared_kafka},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{sleep, timeout};

use crate::support::{Bed, Workload, bed::LIMIT};

const WARNING: ByteSize = ByteSize::mib(4);
const WARNED: &str = "the server keeps much WAL for the slot";
const OVER: &str = "the server keeps little WAL for the slot again";

async fn start(bed: &mut Bed<'_>) -> (PipelineHandle, CollectedLogs) {
    bed.config.postgres.retained_wal_warning = WARNING;
    bed.config.checkpoint.idle_interval = Duration::from_millis(100);
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    (pipeline, lines)
}

/// Writes to a table that is none of ours.
async fn foreign_traffic(bed: &Bed<'_>, mib: u32) {
    let client = bed.client().await;
    let statement = "CREATE TABLE IF NOT EXISTS foreign_rows (note text)";
    client.batch_execute(statement).await.expect("a table");
    let insert =
        "INSERT INTO foreign_rows SELECT repeat(md5(n::text), 32) FROM generate_series(1, 1000) n";
    for _ in 0..mib {
        client.execute(insert, &[]).await.expect("rows are written");
    }
}

async fn said(lines: &CollectedLogs, message: &str) -> LogLine {
    let line = lines.await_line(|line| line.message == message, LIMIT).await;
    line.unwrap_or_else(|| panic!("it never said {message:?}"))
}

fn warned_bytes(line: &LogLine) -> u64 {
    line.value("retained_bytes").and_then(|bytes| bytes.parse().ok()).expect("a number")
}

#[actix::test]
async fn an_open_transaction_is_named_with_what_it_holds_back() {
    let mut bed = Bed::shared("retained").await;
    let (pipeline, lines) = start(&mut bed).await;
    let mut holder = bed.client().await;
    let query = "SELECT pg_backend_pid(), pg_current_xact_id()::text";
    let transaction = holder.transaction().await.expect("a transaction");
    let row = transaction.query_one(query, &[]).await.expect("a row");
    let (pid, xid): (i32, String) = (row.get(0), row.get(1));
    let write = "SELECT pg_logical_emit_message(true, 'none of ours', 'x')";
    transaction.execute(write, &[]).await.expect("it writes");
    // Younger ones are not held against anybody.
    let age = "SELECT pg_sleep(6)";
    transaction.execute(age, &[]).await.expect("time passes");
    foreign_traffic(&bed, 8).await;

    let line = said(&lines, WARNED).await;
    assert!(warned_bytes(&line) >= WARNING.as_u64(), "{line}");
    let cause = line.value("waits_for").expect("a cause");
    let named = format!("the open transaction {xid} (pid {pid}, since 2");
    assert!(cause.starts_with(&named), "{line}");
    let remedy = format!("end it: SELECT pg_terminate_backend({pid})");
    assert_eq!(line.value("remedy"), Some(&*remedy), "{line}");
    let status = pipeline.status();
    assert!(status.retained_wal_bytes >= WARNING.as_u64(), "{status:?}");
    assert_eq!(status.retained_wal_waits_for.as_deref(), Some(cause), "{status:?}");

    // To the letter, and it is over once the server has looked again.
    let end = remedy.strip_prefix("end it: ").expect("a statement");
    bed.client().await.execute(end, &[]).await.expect("the backend is ended");
    let over = async {
        let client = bed.client().await;
        while lines.lines().iter().all(|line| line.message != OVER) {
            client.batch_execute("CHECKPOINT").await.expect("the server looks");
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(LIMIT, over).await.expect("it is over");
    assert_eq!(pipeline.status().retained_wal_waits_for, None);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_topic_that_takes_nothing_is_named_with_its_error() {
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    // The other test's traffic is in the shared server's WAL.
    let postgres = PostgresServer::builder().setting("max_slot_wal_keep_size", "1GB");
    let postgres = postgres.start().await.expect("PostgreSQL starts");
    let mut bed = Bed::on(&postgres, &kafka, "retained").await;
    let (pipeline, lines) = start(&mut bed).await;
    let mut history = Workload::new(&bed.name, 10).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    kafka.kill(1).await.expect("the broker is killed");
    let more = Workload { seed: 2, aggregate_prefix: "b", ..Workload::new(&bed.name, 10) };
    history.merge(more.emit(&mut bed.client().await).await);
    foreign_traffic(&bed, 8).await;

    let line = said(&lines, WARNED).await;
    assert!(warned_bytes(&line) >= WARNING.as_u64(), "{line}");
    let cause = line.value("waits_for").expect("a cause");
    assert!(cause.contains(&format!("topic {}.", bed.name)), "{line}");
    assert!(cause.contains("undelivered events: ") && cause.contains("Kafka: "), "{line}");

    // Where the server has a limit, it is known how long that lasts.
    let lasts = async {
        loop {
            foreign_traffic(&bed, 1).await;
            let status = pipeline.status();
            if let Some(seconds) = status.slot_lost_in_seconds {
                return (status, seconds);
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let (status, seconds) = timeout(LIMIT, lasts).await.expect("it grows");
    let (growth, safe) = (status.retained_wal_growth, status.safe_wal_bytes);
    let (growth, safe) = (growth.expect("it grows"), safe.expect("there is a limit"));
    assert!(growth > 0.0 && (1 << 29..1 << 30).contains(&safe), "{status:?}");
    assert!((safe as f64 / growth - seconds as f64).abs() <= 1.0, "{status:?}");
    assert!(status.lag.bytes >= WARNING.as_u64() && status.lag.events > 0, "{status:?}");
    assert!(status.lag.seconds.is_some_and(|seconds| seconds > 1.0), "{status:?}");
    let blocked = status.topics.values().map(|topic| topic.blocked_by);
    assert!(blocked.clone().any(|by| by == Some(BlockedBy::Kafka)), "{status:?}");

    kafka.start_again(1).await.expect("the broker comes back");
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// A process of the server's, which stands still until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn stop(pid: i32) -> Self {
        let done = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        done.expect("it is ours");
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0), Signal::SIGCONT).ok();
    }
}

#[actix::test]
async fn what_is_not_read_yet_is_not_called_up_to_date() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, kafka, "unread").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let until = async |what: &str, is: &dyn Fn(&Lag) -> bool| {
        let waiting = async {
            while !is(&pipeline.status().lag) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let done = timeout(LIMIT, waiting).await;
        done.unwrap_or_else(|_| panic!("{what}: {:?}", pipeline.status().lag));
    };
    until("up to date", &|lag| lag.seconds == Some(0.0)).await;
    let query = "SELECT active_pid FROM pg_replication_slots WHERE active";
    let pid: i32 = bed.client().await.query_one(query, &[]).await.expect("a reader").get(0);
    // What is between the server's disk and its network is not ours to see; it stands for a
    // reader that works through much that is none of ours.
    let walsender = Stopped::stop(pid);
    foreign_traffic(&bed, 48).await;
    until("behind", &|lag| lag.bytes > 32 << 20).await;
    let lag = pipeline.status().lag;
    assert_eq!((lag.events, lag.seconds), (0, None), "nobody knows how old that is: {lag:?}");
    drop(walsender);
    until("up to date again", &|lag| lag.seconds == Some(0.0) && lag.bytes < 1 << 20).await;
    pipeline.shutdown().await.expect("a clean stop");
}
