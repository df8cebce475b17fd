//! What an idle pipeline costs: memory, CPU, connections, threads.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use factlib::testing::{PostgresServer, Program, shared_kafka};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{
    bed::LIMIT,
    probe::{free_port, until_within},
};

const PIPELINES: usize = 200;
/// Over which CPU is measured.
const REST: Duration = Duration::from_secs(60);

/// Memory in KiB, CPU seconds and threads of a process.
fn usage(pid: u32) -> (u64, f64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_start_matches(':').split_whitespace().next().expect(name).parse().expect(name)
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    (number("VmRSS"), (ticks(11) + ticks(12)) as f64 / 100.0, number("Threads"))
}

/// Run it with a release build: `FACTLIB_BINARY=target/release/factlib cargo test … -- --ignored`.
#[actix::test]
#[ignore = "takes three minutes and measures: see docs/fleet.md"]
async fn two_hundred_idle_pipelines() {
    let binary = std::env::var_os("FACTLIB_BINARY").map(PathBuf::from);
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_factlib").into());
    let postgres = PostgresServer::builder()
        .setting("max_connections", "1000")
        .setting("max_wal_senders", "250")
        .setting("max_replication_slots", "250")
        .start();
    let postgres = postgres.await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let folder = TempDir::new().expect("a folder");
    for number in 0..PIPELINES {
        let database = postgres.create_database("tenant").await.expect("a database");
        let url = postgres.url_for(&database);
        let file = folder.path().join(format!("t{number:03}.toml"));
        fs::write(file, format!("postgres.url = {url:?}\n")).expect("a file");
    }
    let port = free_port().to_string();
    let variables = [
        ("FACTLIB_FLEET__PIPELINES", folder.path().display().to_string()),
        ("FACTLIB_KAFKA__BROKERS", kafka.bootstrap()),
        ("FACTLIB_HTTP__METRICS_PORT", port.clone()),
        ("FACTLIB_LOG__LEVEL", "warn".into()),
        ("FACTLIB_PIPELINE__STARTUP_TIMEOUT", "120s".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let began = Instant::now();
    let program = Program::start(Path::new(&binary), &["run".into()], &variables);
    let program = program.expect("factlib starts");
    let running = |body: &str| {
        let status: Value = serde_json::from_str(body).expect("JSON");
        let pipelines = status["pipelines"].as_array().expect("a list").iter();
        pipelines.filter(|pipeline| pipeline["state"] == "running").count()
    };
    let all = |_, body: &str| running(body) == PIPELINES;
    until_within(Duration::from_secs(300), port.parse().expect("a port"), "/status.json", all)
        .await;
    let started = began.elapsed();
    sleep(Duration::from_secs(15)).await;
    let (memory, before, threads) = usage(program.pid());
    sleep(REST).await;
    let (_, after, _) = usage(program.pid());
    let sessions = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name <> ''";
    let sessions = postgres.query_text("postgres", sessions).await.expect("a count");
    println!(
        "{PIPELINES} pipelines: all run after {:.1} s; {} MiB, {:.2} MiB each; {:.3} % of a core \
         each; {threads} threads; {sessions} sessions on the server",
        started.as_secs_f64(),
        memory / 1024,
        memory as f64 / 1024.0 / PIPELINES as f64,
        (after - before) / REST.as_secs_f64() * 100.0 / PIPELINES as f64,
    );
    program.terminate();
    assert!(program.ended(LIMIT).await.expect("it ends").success(), "{}", program.output());
}
