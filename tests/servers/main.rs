//! The throwaway servers themselves: they serve, come back, and leave nothing behind.

mod readme;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use factlib::testing::{
    ErrorKind, KafkaServer, PostgresServer, SelfSigned, StopMode, create_topic, read_topic,
    shared_kafka, shared_postgres, topic_names, wait_for_count,
};
use factlib_postgres::{ConnectInfo, SqlSession};
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(30);

/// Polls what nothing signals.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} after {SOON:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// True while a process with that id runs; one that only waits to be reaped has ended.
fn alive(pid: u32) -> bool {
    if Path::new("/proc/self/stat").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
    }
    let ps = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(ps.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

async fn select_one(url: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let result = client.batch_execute("SELECT 1").await;
    connection.abort();
    result
}

fn producer(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "200")
        .set("linger.ms", "0");
    config
}

async fn send(producer: &FutureProducer, topic: &str, value: &str) -> Result<(), KafkaError> {
    let headers = OwnedHeaders::new().insert(Header { key: "id", value: Some("7") });
    let record = FutureRecord::to(topic).key("k").payload(value).headers(headers);
    producer.send(record, SOON).await.map(drop).map_err(|(error, _)| error)
}

#[tokio::test]
async fn postgres_comes_back_on_the_same_port_with_its_data_and_is_gone_after_drop() {
    let server = PostgresServer::builder().setting("work_mem", "5MB").start().await.unwrap();
    let (pid, port, folder) =
        (server.pid().unwrap(), server.port(), server.socket_dir().to_owned());
    assert_eq!(server.query_text("postgres", "SHOW wal_level").await.unwrap(), "logical");
    assert_eq!(server.query_text("postgres", "SHOW work_mem").await.unwrap(), "5MB");
    let database = server.create_database("orders").await.unwrap();
    server.execute(&database, "CREATE TABLE kept (n int)").await.unwrap();

    server.stop(StopMode::Fast).await;
    assert_eq!(server.pid(), None);
    assert!(select_one(&server.url()).await.is_err());
    server.start_again().await.unwrap();
    server.restart(StopMode::Immediate).await.unwrap();
    assert_ne!(server.pid(), Some(pid));
    assert_eq!(server.port(), port);
    server.execute(&database, "SELECT n FROM kept").await.unwrap();
    select_one(&server.url_for(&database)).await.unwrap();

    server.set("work_mem", "6MB").unwrap();
    server.reload().await.unwrap();
    assert_eq!(server.query_text("postgres", "SHOW work_mem").await.unwrap(), "6MB");

    let pid = server.pid().unwrap();
    drop(server);
    assert!(!alive(pid));
    assert!(!folder.exists());
}

#[tokio::test]
async fn postgres_asks_for_the_password_over_tcp() {
    let server = PostgresServer::builder().password("it's").start().await.unwrap();
    assert!(select_one(&server.url()).await.is_err());
    let mut config: tokio_postgres::Config = server.url().parse().unwrap();
    let (client, connection) =
        config.password("it's").connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn postgres_offers_tls() {
    let SelfSigned { certificate, key } = SelfSigned::new("factlib").unwrap();
    let server = PostgresServer::builder()
        .ssl(&certificate, key)
        .client_ca(&certificate)
        .hba("hostssl all all all trust")
        .hba("host all all all reject")
        .start()
        .await
        .unwrap();
    assert!(select_one(&server.url()).await.is_err());
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.crt");
    std::fs::write(&root, &certificate).unwrap();
    let url = format!(
        "host=localhost port={} user=postgres sslmode=verify-full sslrootcert={}",
        server.port(),
        root.display()
    );
    let session = SqlSession::connect(&ConnectInfo::parse(&url).unwrap(), SOON).await.unwrap();
    session.into_client().batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_postgres_that_cannot_start_says_why() {
    let error = PostgresServer::builder().setting("wal_level", "sideways").start().await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
    assert!(error.to_string().contains("sideways"), "{error}");
}

#[test]
fn the_shared_postgres_serves_every_runtime() {
    let pid = || {
        // A runtime that is gone before the next one comes.
        actix_rt::System::new().block_on(async {
            let server = shared_postgres().await.unwrap();
            select_one(&server.url()).await.unwrap();
            server.pid().unwrap()
        })
    };
    assert_eq!(pid(), pid());
}

#[tokio::test]
async fn kafka_gives_back_what_it_took() {
    let kafka = shared_kafka().await.unwrap();
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "given-back", 3, &[("retention.ms", "-1")]).await.unwrap();
    assert!(topic_names(&bootstrap).await.unwrap().contains(&"given-back".to_owned()));
    assert_eq!(read_topic(&bootstrap, "given-back").await.unwrap(), []);

    let producer: FutureProducer = producer(&bootstrap).create().unwrap();
    for value in ["first", "second"] {
        send(&producer, "given-back", value).await.unwrap();
    }
    let records = read_topic(&bootstrap, "given-back").await.unwrap();
    let values: Vec<_> = records.iter().map(|record| record.value.clone().unwrap()).collect();
    assert_eq!(values, ["first", "second"]);
    assert_eq!(records[0].key.as_deref(), Some(b"k".as_slice()));
    assert_eq!(records[0].header("id"), Some(&Bytes::from("7")));
    assert!(records[0].timestamp_ms.is_some());
    let again = wait_for_count(&bootstrap, &["given-back"], 2, SOON).await.unwrap();
    assert_eq!(again, records);
    let short = Duration::from_millis(500);
    let error = wait_for_count(&bootstrap, &["given-back"], 3, short).await.unwrap_err();
    assert!(error.to_string().starts_with("2 of 3 records in given-back"), "{error}");
}

#[tokio::test]
async fn one_broker_of_three_may_die_behind_its_proxy() {
    let kafka = KafkaServer::builder().brokers(3).proxied().start().await.unwrap();
    let bootstrap = kafka.bootstrap();
    assert!(bootstrap.contains(&kafka.proxy(2).unwrap().address().to_string()));
    create_topic(&bootstrap, "survivor", 3, &[]).await.unwrap();
    let producer: FutureProducer = producer(&bootstrap).set("acks", "all").create().unwrap();
    send(&producer, "survivor", "before").await.unwrap();
    kafka.kill(2).await.unwrap();
    assert_eq!(kafka.pid(2).unwrap(), None);
    send(&producer, "survivor", "during").await.unwrap();
    kafka.start_again(2).await.unwrap();
    for broker in 1..=3 {
        kafka.proxy(broker).unwrap().pause();
    }
    assert!(timeout(Duration::from_millis(300), send(&producer, "survivor", "x")).await.is_err());
    for broker in 1..=3 {
        kafka.proxy(broker).unwrap().resume();
    }
    send(&producer, "survivor", "after").await.unwrap();
    let records = wait_for_count(&bootstrap, &["survivor"], 4, SOON).await.unwrap();
    assert_eq!(records.len(), 4);
}

#[tokio::test]
async fn a_paused_broker_goes_on_and_a_dropped_one_is_gone() {
    let kafka = KafkaServer::start().await.unwrap();
    let bootstrap = kafka.bootstrap();
    create_topic(&bootstrap, "paused", 1, &[]).await.unwrap();
    let producer: FutureProducer = producer(&bootstrap).create().unwrap();
    kafka.pause(1).unwrap();
    assert!(timeout(Duration::from_millis(300), send(&producer, "paused", "x")).await.is_err());
    kafka.resume(1).unwrap();
    assert_eq!(wait_for_count(&bootstrap, &["paused"], 1, SOON).await.unwrap().len(), 1);
    kafka.stop(1).await.unwrap();
    kafka.start_again(1).await.unwrap();
    assert_eq!(read_topic(&bootstrap, "paused").await.unwrap().len(), 1);
    let pid = kafka.pid(1).unwrap().unwrap();
    kafka.pause(1).unwrap();
    drop(kafka);
    assert!(!alive(pid));
}

#[tokio::test]
async fn kafka_asks_for_a_login_and_allows_what_acls_allow() {
    let kafka = KafkaServer::builder()
        .sasl_plain_users([("relay", "secret")])
        .authorizer()
        .start()
        .await
        .unwrap();
    create_topic(&kafka.admin_bootstrap(), "guarded", 1, &[]).await.unwrap();
    let mut config = producer(&kafka.bootstrap());
    config
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", "relay")
        .set("sasl.password", "secret");
    let relay: FutureProducer = config.create().unwrap();
    let refused = send(&relay, "guarded", "x").await.unwrap_err();
    let code = refused.rdkafka_error_code();
    assert_eq!(code, Some(rdkafka::error::RDKafkaErrorCode::TopicAuthorizationFailed));
    let admin: FutureProducer = producer(&kafka.admin_bootstrap()).create().unwrap();
    send(&admin, "guarded", "x").await.unwrap();
}

/// The line in which the process of the next test says what it started.
const STARTED: &str = "STARTED";
/// Set for that process alone: nobody else should wait there.
const INSIDE: &str = "FACTLIB_TEST_INSIDE";

#[tokio::test]
#[ignore = "runs inside of killed_processes_leave_no_servers_behind"]
async fn starts_servers_and_waits_to_be_killed() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let postgres = shared_postgres().await.unwrap();
    let kafka = KafkaServer::start().await.unwrap();
    let (folder, pid) = (postgres.socket_dir().display(), postgres.pid().unwrap());
    println!("{STARTED} {pid} {} {folder}", kafka.pid(1).unwrap().unwrap());
    // Killed or not, it ends with the test that started it.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

#[tokio::test]
async fn killed_processes_leave_no_servers_behind() {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "starts_servers_and_waits_to_be_killed", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let line = output.lines().map_while(Result::ok).find(|line| line.contains(STARTED)).unwrap();
    let words: Vec<_> = line.split_whitespace().rev().take(3).collect();
    let folder = PathBuf::from(words[0]);
    let pids: [u32; 2] = [words[1].parse().unwrap(), words[2].parse().unwrap()];
    assert!(pids.iter().all(|pid| alive(*pid)) && folder.join("data").is_dir());
    process.kill().unwrap();
    process.wait().unwrap();
    until("the servers live on", || !pids.iter().any(|pid| alive(*pid))).await;
    until("the folder stays", || !Path::new(&folder).exists()).await;
}
