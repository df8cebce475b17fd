//! What an idle pipeline costs: memory, CPU, connections, threads.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use factlib::{
    emit::{Emitter, Fact},
    testing::{
        KafkaServer, PostgresServer, Program, shared_kafka, shared_postgres, wait_for_count,
    },
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::support::{
    bed::LIMIT,
    probe::{free_port, get, until, until_within},
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

/// Number of pipelines in a status that run.
fn running(body: &str) -> usize {
    let status: Value = serde_json::from_str(body).expect("JSON");
    let pipelines = status["pipelines"].as_array().expect("a list").iter();
    pipelines.filter(|pipeline| pipeline["state"] == "running").count()
}

/// Emits one fact.
async fn emit_in(postgres: &PostgresServer, database: &str) {
    let mut client = postgres.connect(database).await.expect("a session");
    let transaction = client.transaction().await.expect("a transaction");
    let fact = Fact::new("tenant", database, "created");
    Emitter::default().emit(&transaction, &fact).await.expect("emitted");
    transaction.commit().await.expect("a commit");
}

/// Number of connections of a process to this port.
fn connections_to(pid: u32, port: u16) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let sockets: HashSet<String> = open
        .filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let remote_end = format!(":{port:04X}");
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let tables: String = tables.into_iter().flatten().collect();
    let connections = tables.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    connections
        .filter(|fields| fields.get(2).is_some_and(|remote| remote.ends_with(&remote_end)))
        .filter(|fields| fields.get(9).is_some_and(|inode| sockets.contains(*inode)))
        .count()
}

#[actix::test]
async fn pipelines_that_send_in_turn_share_their_connections_to_kafka() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let bootstrap = kafka.bootstrap();
    let folder = TempDir::new().expect("a folder");
    let mut databases = Vec::new();
    for number in 0..8 {
        let database = postgres.create_database("sharing").await.expect("a database");
        let url = postgres.url_for(&database);
        let text = format!("postgres.url = {url:?}\npostgres.slot = \"{database}\"\n");
        fs::write(folder.path().join(format!("t{number}.toml")), text).expect("a file");
        databases.push(database);
    }
    let port = free_port();
    let variables = [
        ("FACTLIB_FLEET__PIPELINES", folder.path().display().to_string()),
        ("FACTLIB_KAFKA__BROKERS", bootstrap.clone()),
        ("FACTLIB_KAFKA__TOPICS__PARTITIONS", "1".into()),
        ("FACTLIB_KAFKA__TOPIC_PREFIX", "sharing".into()),
        ("FACTLIB_HTTP__METRICS_PORT", port.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let program =
        Program::start(env!("CARGO_BIN_EXE_factlib").as_ref(), &["run".into()], &variables);
    let program = program.expect("factlib starts");
    until(port, "/status.json", |_, body| running(body) == databases.len()).await;
    for database in &databases {
        emit_in(postgres, database).await;
    }
    let sent = wait_for_count(&bootstrap, &["sharing.tenant"], databases.len(), LIMIT);
    sent.await.expect("records");
    let kafka_port = bootstrap.rsplit_once(':').expect("an address").1.parse().expect("a port");
    // Those that they needed at the same time, at the start, are closed after 10 s.
    let sending = async {
        for database in databases.iter().cycle() {
            if connections_to(program.pid(), kafka_port) <= 2 {
                return;
            }
            emit_in(postgres, database).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, sending).await.expect("few connections are left");
    let (_, metrics) = get(port, "/metrics").await.expect("an answer");
    let up = metrics.lines().filter(|line| line.starts_with("factlib_kafka_broker_up{"));
    assert!(up.clone().all(|line| line.ends_with(" 1")), "{metrics}");
    program.terminate();
    assert!(program.ended(LIMIT).await.expect("it ends").success(), "{}", program.output());
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
    let mut databases = Vec::new();
    for number in 0..PIPELINES {
        let database = postgres.create_database("tenant").await.expect("a database");
        let url = postgres.url_for(&database);
        let file = folder.path().join(format!("t{number:03}.toml"));
        fs::write(file, format!("postgres.url = {url:?}\n")).expect("a file");
        databases.push(database);
    }
    let port = free_port().to_string();
    let variables = [
        ("FACTLIB_FLEET__PIPELINES", folder.path().display().to_string()),
        ("FACTLIB_KAFKA__BROKERS", kafka.bootstrap()),
        ("FACTLIB_KAFKA__TOPICS__PARTITIONS", "1".into()),
        ("FACTLIB_KAFKA__TOPIC_PREFIX", "cost".into()),
        ("FACTLIB_HTTP__METRICS_PORT", port.clone()),
        ("FACTLIB_LOG__LEVEL", "warn".into()),
        ("FACTLIB_PIPELINE__STARTUP_TIMEOUT", "120s".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let began = Instant::now();
    let program = Program::start(Path::new(&binary), &["run".into()], &variables);
    let program = program.expect("factlib starts");
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
    let bootstrap = kafka.bootstrap();
    let kafka_port = bootstrap.rsplit_once(':').expect("an address").1.parse().expect("a port");
    let to_kafka = || connections_to(program.pid(), kafka_port);
    let idle = to_kafka();
    assert!(idle < 20, "{idle}");
    for database in &databases {
        emit_in(&postgres, database).await;
    }
    let sent = wait_for_count(&bootstrap, &["cost.tenant"], PIPELINES, LIMIT);
    sent.await.expect("records");
    let at_once = to_kafka();
    sleep(REST).await;
    let (memory, ..) = usage(program.pid());
    assert!(to_kafka() < 20, "{}", to_kafka());
    println!(
        "connections to Kafka: {idle} before a pipeline has sent anything, {at_once} when each has \
         just sent an event, {} a minute later; {} MiB",
        to_kafka(),
        memory / 1024
    );
    program.terminate();
    assert!(program.ended(LIMIT).await.expect("it ends").success(), "{}", program.output());
}
