//! A Kafka that stands still: memory stays within the window, the replication
//! connection stays alive, and when it moves again, all arrives.

use std::{process::Command, time::Duration};

use bytesize::ByteSize;
use factlib::testing::{KafkaServer, PostgresServer};

use crate::support::{Bed, Workload};

const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(4);

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("KiB");
    kib * 1024
}

/// Set for the process that measures its memory: nobody else should run that.
const INSIDE: &str = "FACTLIB_TEST_ALONE";

#[test]
fn a_kafka_that_stands_still_stops_the_reading_and_nothing_else() {
    let mut alone = Command::new(std::env::current_exe().expect("this test"));
    alone.args(["--exact", "backpressure::alone", "--ignored", "--nocapture"]).env(INSIDE, "1");
    let output = alone.output().expect("it runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    println!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    assert!(text(&output.stdout).contains("1 passed"), "it did not run");
}

#[actix::test]
#[ignore = "run by the test above, in a process in which nothing else takes memory"]
async fn alone() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let timeout = format!("{}ms", WAL_SENDER_TIMEOUT.as_millis());
    let postgres = PostgresServer::builder()
        .setting("wal_sender_timeout", timeout)
        .start()
        .await
        .expect("PostgreSQL");
    let kafka = KafkaServer::builder().proxied().start().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, &kafka, "still").await;
    bed.config.pipeline.window = ByteSize::mib(2);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;

    // Every topic is open before Kafka stands still.
    let workload = Workload::new(&bed.name, 100);
    let mut history = workload.emit(&mut client).await;
    bed.delivered(&history).await;
    kafka.proxy(1).expect("a proxy").pause();

    let backlog = Workload {
        seed: 2,
        aggregate_prefix: "later-",
        transaction: 50..=100,
        padding: 500,
        ..Workload::new(&bed.name, 40_000)
    };
    let backlog = backlog.emit(&mut client).await;
    let sender = walsender(&bed).await;
    let before = resident();
    let received = pipeline.status().received_lsn;
    tokio::time::sleep(3 * WAL_SENDER_TIMEOUT).await;

    let status = pipeline.status();
    assert_eq!(walsender(&bed).await, sender, "the connection is the same one");
    assert_eq!(status.generation, 1, "{status:?}");
    assert_eq!(status.received_lsn, received, "nothing more is read");
    assert!(status.in_flight_bytes <= status.window_bytes, "{status:?}");
    assert!(status.in_flight_bytes > status.window_bytes / 2, "{status:?}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more while nothing moves");

    kafka.proxy(1).expect("a proxy").resume();
    history.merge(backlog);
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// The process that sends to our slot.
async fn walsender(bed: &Bed<'_>) -> i32 {
    let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    bed.client().await.query_one(query, &[&bed.name]).await.expect("the slot").get(0)
}
