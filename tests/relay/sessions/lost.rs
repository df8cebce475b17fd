//! Replication connections whose server says nothing, though its own time-outs are off.

use std::time::{Duration, Instant};

use factlib::{
    PipelineHandle, PipelineState,
    testing::{CollectedLogs, PostgresServer, Proxy, shared_kafka},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{relayed, says, until};
use crate::support::{Bed, History, Workload};

/// A server that would never end a connection by itself.
async fn patient_server() -> PostgresServer {
    let server = PostgresServer::builder().setting("wal_sender_timeout", "0");
    server.start().await.expect("PostgreSQL starts")
}

async fn reader(bed: &Bed<'_>) -> i32 {
    let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    let row = bed.client().await.query_one(query, &[&bed.name]).await.expect("the slot");
    row.get::<_, Option<i32>>(0).expect("a reader")
}

#[actix::test]
async fn a_walsender_that_stands_still_is_given_up_and_named_until_it_ends() {
    let (postgres, kafka) = (patient_server().await, shared_kafka().await.expect("Kafka"));
    let mut bed = Bed::on(&postgres, kafka, "still").await;
    bed.config.postgres.wal_receiver_timeout = Duration::from_secs(4);
    bed.config.http.stuck_after = Duration::from_secs(1);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;
    until("healthy", &pipeline, |pipeline| pipeline.health().is_ok()).await;

    let pid = reader(&bed).await;
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it stands still");
    says(&logs, "generation failed", &["the server has not answered for 4s"]).await;
    // It can't even be ended: an operator has to know of it, and this is no standing by.
    let held = format!(
        "is held by PID {pid}, the server process of our own lost connection, which was told to \
         end and has not ended"
    );
    says(&logs, "starting again after a pause", &[&held]).await;
    let state = pipeline.status().state;
    assert!(matches!(state, PipelineState::Retrying { .. }), "{state:?}");
    let unhealthy =
        |pipeline: &PipelineHandle| pipeline.health().is_err_and(|why| why.contains(&held));
    until("unhealthy", &pipeline, unhealthy).await;

    kill(Pid::from_raw(pid), Signal::SIGCONT).expect("it goes on");
    until("running", &pipeline, |pipeline| pipeline.status().state == PipelineState::Running).await;
    relayed(&bed, "after", &mut history).await;
    until("healthy", &pipeline, |pipeline| pipeline.health().is_ok()).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_network_that_swallows_everything_is_noticed_and_what_it_left_is_ended() {
    let (postgres, kafka) = (patient_server().await, shared_kafka().await.expect("Kafka"));
    let network = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await.expect("a proxy");
    let mut bed = Bed::on(&postgres, kafka, "swallowed").await;
    let (port, database) = (network.address().port(), &bed.database);
    bed.config.postgres.url = format!("postgresql://postgres@127.0.0.1:{port}/{database}").into();
    bed.config.postgres.wal_receiver_timeout = Duration::from_secs(4);
    bed.config.postgres.connect_timeout = Duration::from_secs(2);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;

    let pid = reader(&bed).await;
    network.half_open();
    says(&logs, "generation failed", &["the server has not answered for 4s"]).await;
    network.resume();
    until("running", &pipeline, |pipeline| pipeline.status().state == PipelineState::Running).await;
    relayed(&bed, "after", &mut history).await;
    // The relay ends it, or the time-out that the relay has set for it.
    assert_ne!(reader(&bed).await, pid);
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// Rows of a transaction that the server decodes for some seconds, and sends nothing of.
const UNRELATED_ROWS: u32 = 1_500_000;

#[actix::test]
async fn a_server_that_decodes_a_large_unrelated_transaction_is_waited_for() {
    let mut bed = Bed::shared("decodes").await;
    bed.config.postgres.wal_receiver_timeout = Duration::from_millis(600);
    bed.config.postgres.status_interval = Duration::from_millis(100);
    let pipeline = bed.pipeline().start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;
    let client = bed.client().await;
    let rows = format!(
        "CREATE TABLE unrelated AS SELECT 0 AS n WHERE false;
         INSERT INTO unrelated SELECT generate_series(1, {UNRELATED_ROWS})"
    );
    client.batch_execute(&rows).await.expect("a large transaction");
    let committed = Instant::now();
    relayed(&bed, "after", &mut history).await;
    // On a busy machine, the server may be late for so short a limit. Each loss doubles it; what
    // resets it too early needs many more connections.
    let (took, status) = (committed.elapsed(), pipeline.status());
    assert!(status.generation <= 6, "generation {} after {took:?}", status.generation);
    pipeline.shutdown().await.expect("a clean stop");
    bed.drop_slot().await;
}

#[actix::test]
async fn a_full_window_is_no_silence() {
    let mut bed = Bed::shared("full").await;
    bed.config.postgres.wal_receiver_timeout = Duration::from_secs(1);
    bed.config.pipeline.window = bytesize::ByteSize::kib(16);
    bed.config.pipeline.batch = bytesize::ByteSize::kib(4);
    let pipeline = bed.pipeline().start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;
    let topics = bed.topics(&history);
    topics.iter().for_each(|topic| pipeline.pause_topic(&**topic).expect("a topic"));
    let more = Workload { seed: 2, aggregate_prefix: "more", ..Workload::new(&bed.name, 500) };
    history.merge(more.emit(&mut bed.client().await).await);
    until("full", &pipeline, |pipeline| {
        pipeline.status().in_flight_bytes * 2 > pipeline.status().window_bytes
    })
    .await;
    // Several limits of silence go by, in which the reader reads nothing.
    tokio::time::sleep(Duration::from_secs(4)).await;
    topics.iter().for_each(|topic| pipeline.resume_topic(&**topic).expect("a topic"));
    bed.delivered(&history).await;
    assert_eq!(pipeline.status().generation, 1);
    pipeline.shutdown().await.expect("a clean stop");
    bed.drop_slot().await;
}
