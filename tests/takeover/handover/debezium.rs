//! Goes on behind the real Debezium, killed or stopped under load, with the real command.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::{binary::Loader, testing::wait_for_count};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use super::outbox::{self, Row, all_records, check, counts, insert};
use crate::{
    servers::{Bed, bed::LIMIT},
    support::{installed, peer::Debezium},
};

/// Rounds of the long form.
const ROUNDS: usize = 20;

const SERVER: &str = include_str!("../../../benches/compare/settings/debezium-server.properties");
const WORKER: &str = include_str!("../../../benches/compare/settings/connect-worker.properties");
const CONNECTOR: &str =
    include_str!("../../../benches/compare/settings/connect-connector.properties");

/// Settings of Debezium, which outlive it.
struct Settings {
    folder: TempDir,
    /// Of Debezium Server, or of the connector.
    file: PathBuf,
    text: String,
    worker: Option<String>,
}

impl Settings {
    fn server(bed: &Bed<'_>, flush_ms: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = fill(SERVER, bed, folder.path());
        let text = with(&text, "debezium.source.offset.flush.interval.ms", flush_ms);
        let file = folder.path().join("application.properties");
        std::fs::write(&file, &text).expect("written");
        Settings { folder, file, text, worker: None }
    }

    fn connect(bed: &Bed<'_>, flush_ms: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let worker = with(&fill(WORKER, bed, folder.path()), "offset.flush.interval.ms", flush_ms);
        let text = fill(CONNECTOR, bed, folder.path());
        let file = folder.path().join("outbox.properties");
        std::fs::write(&file, &text).expect("written");
        std::fs::write(folder.path().join("worker.properties"), &worker).expect("written");
        Settings { folder, file, text, worker: Some(worker) }
    }

    fn start(&self) -> Debezium {
        let started = match &self.worker {
            None => Debezium::server(&self.text),
            Some(worker) => {
                let folder = tempfile::tempdir().expect("a folder");
                Debezium::worker(folder, worker, &[("outbox".into(), self.text.clone())])
            }
        };
        started.expect("Debezium starts")
    }

    /// `factlib takeover debezium` with these settings.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        command.env_clear().current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.args(["takeover", "debezium", "--log-level", "error", "--config"]).arg(&self.file);
        if self.worker.is_some() {
            command.arg("--worker").arg(self.folder.path().join("worker.properties"));
        }
        command.args(more);
        command
    }

    async fn run(&self, more: &[&str]) -> Output {
        let output = timeout(LIMIT, self.command(more).output()).await;
        output.expect("it ends").expect("it runs")
    }

    /// What the command says as JSON.
    async fn json(&self, more: &[&str]) -> Value {
        let output = self.run(&[more, &["--json"]].concat()).await;
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn fill(text: &str, bed: &Bed<'_>, folder: &Path) -> String {
    let values = [
        ("{{postgres_port}}", bed.postgres.port().to_string()),
        ("{{database}}", bed.database.clone()),
        ("{{publication}}", bed.config.postgres.publication.clone()),
        ("{{slot}}", bed.name.clone()),
        ("{{brokers}}", bed.kafka.bootstrap()),
        ("{{topics}}", bed.name.clone()),
        ("{{folder}}", folder.display().to_string()),
    ];
    values.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value))
}

/// Replaces a setting.
fn with(text: &str, name: &str, value: &str) -> String {
    let others = text.lines().filter(|line| !line.starts_with(&format!("{name}=")));
    let lines: Vec<_> = others.map(str::to_owned).chain([format!("{name}={value}")]).collect();
    lines.join("\n")
}

enum End {
    Killed,
    Stopped,
}

/// Inserts rows until it is told to stop.
fn write(bed: &Bed<'_>) -> (tokio::task::JoinHandle<Vec<Row>>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, sessions) = (Arc::clone(&stop), bed.sessions());
    let writer = tokio::spawn(async move {
        let (mut client, connection) =
            sessions.connect(tokio_postgres::NoTls).await.expect("a session");
        tokio::spawn(connection);
        let mut rows = Vec::new();
        while !stopped.load(Relaxed) {
            rows.extend(insert(&mut client, 50, 20).await);
        }
        rows
    });
    (writer, stop)
}

/// Debezium ends after so long under load, and factlib goes on; returns the rows, and how many records
/// Debezium had sent behind the slot's position.
async fn take_over(
    bed: &Bed<'_>,
    settings: &Settings,
    load: Duration,
    end: End,
) -> (Vec<Row>, u64) {
    let debezium = settings.start();
    debezium.reads(&bed.client().await, std::slice::from_ref(&bed.name)).await.expect("it reads");
    let running = settings.run(&["--check"]).await;
    let said = String::from_utf8_lossy(&running.stderr).into_owned();
    let expected = format!("factlib: slot {} is active for PID ", bed.name);
    assert!(said.starts_with(&expected), "{said}");

    let (writer, stop) = write(bed);
    let topics = ["order", "user"].map(|kind| format!("{}.{kind}", bed.name));
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    wait_for_count(&bed.kafka.admin_bootstrap(), &names, 1, LIMIT).await.expect("records");
    tokio::time::sleep(load).await;
    match end {
        End::Killed => debezium.program().kill(),
        End::Stopped => debezium.program().terminate(),
    }
    debezium.program().ended(LIMIT).await.expect("it ends");

    let found = settings.json(&["--check"]).await;
    let before = counts(&all_records(bed).await);
    let file = settings.folder.path().join("factlib.toml");
    std::fs::remove_file(&file).ok();
    let written = settings.run(&["--write", &file.display().to_string()]).await;
    assert!(written.status.success(), "{written:?}");
    let take = ["--factlib", "factlib.toml", "--take"];
    // Killed at some moment.
    let pause = Duration::from_millis(rand::random_range(0..2500));
    _ = timeout(pause, settings.command(&take).output()).await;
    let taken = settings.json(&take).await;
    assert_eq!(taken["handover"]["is_taken"], true, "{taken}");

    // As `factlib run` would be started.
    let loader = Loader::new(settings.folder.path()).file(&file);
    let config = loader.load().expect("a configuration").config;
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let pipeline = factlib::Pipeline::builder().config(config).logger(log);
    let pipeline = pipeline.start().await.expect("the pipeline starts");
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Relaxed);
    let rows = writer.await.expect("rows");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    check(&rows, &before, &all_records(bed).await);

    let delivered = found["handover"]["delivered"].as_u64().expect("a number");
    let repeated = before.values().filter(|count| **count > 1).count();
    println!(
        "{} rows; Debezium sent {}, {repeated} of them again; {delivered} behind its position, {} \
         missing between them; offset {}",
        rows.len(),
        before.len(),
        found["handover"]["missing"],
        found["offset"],
    );
    (rows, delivered)
}

#[actix::test]
async fn kafka_connect_is_killed_and_factlib_goes_on_and_back() {
    if installed::kafka_connect().is_err() {
        eprintln!("Kafka Connect is not installed: scripts/bootstrap --tests");
        return;
    }
    let bed = outbox::bed("takeover_connect").await;
    // Its position stays where it is.
    let settings = Settings::connect(&bed, "600000");
    let (mut rows, sent) = take_over(&bed, &settings, Duration::from_secs(1), End::Killed).await;
    assert!(sent > 0, "Debezium was killed before it sent anything that counts");

    // Back again, with its offsets as they were.
    let before = counts(&all_records(&bed).await);
    let debezium = settings.start();
    let mut client = bed.client().await;
    debezium.reads(&client, std::slice::from_ref(&bed.name)).await.expect("it reads");
    let more = insert(&mut client, 20, 3).await;
    let topics = ["order", "user"].map(|kind| format!("{}.{kind}", bed.name));
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let all = before.values().sum::<usize>() + more.len();
    wait_for_count(&bed.kafka.admin_bootstrap(), &names, all, LIMIT).await.expect("the rest");
    rows.extend(more);
    check(&rows, &before, &all_records(&bed).await);
}

#[actix::test]
#[ignore = "minutes, and Debezium Server: make takeover"]
async fn debezium_server_ends_at_any_moment_and_factlib_goes_on() {
    let mut bed = outbox::bed("takeover_server").await;
    let mut sent = 0;
    for round in 1..=ROUNDS {
        outbox::prepare(&mut bed, round).await;
        let flush = ["0", "1000", "60000"][round % 3];
        let settings = Settings::server(&bed, flush);
        let load = Duration::from_millis(rand::random_range(0..4000));
        let end = if round % 4 == 0 { End::Stopped } else { End::Killed };
        println!("round {round}, flush {flush}");
        sent += take_over(&bed, &settings, load, end).await.1;
        let end = format!("TRUNCATE outbox; SELECT pg_drop_replication_slot('{}')", bed.name);
        bed.client().await.batch_execute(&end).await.expect("cleaned up");
    }
    assert!(sent > 0, "Debezium never sent anything behind its position");
}
