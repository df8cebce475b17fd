//! Health, readiness and metrics, as a probe and as Prometheus see them.

use std::{net::TcpListener, time::Duration};

use factlib::{
    ErrorKind, Pipeline, PipelineHandle,
    config::Config,
    emit::{Emitter, Fact},
    testing::{PostgresServer, shared_postgres},
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const SOON: Duration = Duration::from_secs(30);
const STUCK_AFTER: Duration = Duration::from_millis(700);

type Broker = MockCluster<'static, DefaultProducerContext>;

/// A broker and a database of their own, and the configuration of a relay between them.
async fn scene() -> (Broker, &'static PostgresServer, String, Config) {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("factlib.user", 1, 1).unwrap();
    let postgres = shared_postgres().await.unwrap();
    let database = postgres.create_database("ops").await.unwrap();
    let mut config = Config::default();
    config.postgres.url = postgres.url_for(&database).into();
    config.postgres.slot = database.clone();
    config.kafka.brokers = vec![broker.bootstrap_servers()];
    config.http.health_port = Some(free_port());
    config.http.metrics_port = config.http.health_port;
    config.http.stuck_after = STUCK_AFTER;
    (broker, postgres, database, config)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn emit(postgres: &PostgresServer, database: &str) {
    let mut client = postgres.connect(database).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let fact = Fact::new("user", "u1", "created");
    Emitter::new("factlib").emit(&transaction, fact).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Status code and body; none while nobody listens.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.into()))
}

/// Asks until the answer fits. Nothing signals it: asking is what probes do.
async fn until(port: u16, path: &str, fits: impl Fn(u16, &str) -> bool) -> String {
    let mut last = None;
    let asking = async {
        loop {
            match get(port, path).await {
                Some((code, body)) if fits(code, &body) => return body,
                other => last = other,
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = timeout(SOON, asking).await;
    answer.unwrap_or_else(|_| panic!("{path} answered {last:?} to the end"))
}

async fn start(config: &Config) -> PipelineHandle {
    Pipeline::builder().config(config.clone()).start().await.unwrap()
}

#[actix_rt::test]
async fn ready_once_it_streams_and_never_before_or_after() {
    let (broker, _, _, config) = scene().await;
    let port = config.http.health_port.unwrap();
    broker.broker_down(1).unwrap();
    let starting = actix_rt::spawn(Pipeline::builder().config(config).start());
    let body = until(port, "/readyz", |code, _| code == 503).await;
    assert!(body.contains(r#""ok":false"#), "{body}");
    broker.broker_up(1).unwrap();
    let pipeline = starting.await.unwrap().unwrap();
    assert_eq!(get(port, "/readyz").await.unwrap(), (200, r#"{"ok":true}"#.into()));
    assert_eq!(get(port, "/healthz").await.unwrap().0, 200);
    assert_eq!(get(port, "/nothing").await.unwrap().0, 404);
    pipeline.shutdown().await.unwrap();
    assert_eq!(get(port, "/readyz").await.unwrap().0, 503);
    let stopped = get(port, "/healthz").await.unwrap();
    assert_eq!(stopped.0, 503);
    assert!(stopped.1.contains("stopped"), "{stopped:?}");
    drop(pipeline);
    let gone = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("the port is free again");
}

#[actix_rt::test]
async fn unhealthy_while_the_broker_is_away_for_too_long_and_healthy_when_it_is_back() {
    let (broker, postgres, database, config) = scene().await;
    let port = config.http.health_port.unwrap();
    let pipeline = start(&config).await;
    emit(postgres, &database).await;
    until(port, "/status.json", |_, body| body.contains(r#""events":1,"#)).await;
    broker.broker_down(1).unwrap();
    emit(postgres, &database).await;
    let body = until(port, "/healthz", |code, _| code == 503).await;
    assert!(body.contains("topic factlib.user (open), undelivered events: 1"), "{body}");
    assert!(body.contains("Kafka: "), "{body}");
    broker.broker_up(1).unwrap();
    until(port, "/healthz", |code, _| code == 200).await;
    until(port, "/status.json", |_, body| body.contains(r#""events":2,"#)).await;
    pipeline.shutdown().await.unwrap();
}

#[actix_rt::test]
async fn unhealthy_while_postgres_is_away_for_too_long_and_says_why() {
    let (broker, _, _, mut config) = scene().await;
    let postgres = PostgresServer::start().await.unwrap();
    config.postgres.url = postgres.url().into();
    let port = config.http.health_port.unwrap();
    let pipeline = start(&config).await;
    postgres.stop(factlib::testing::StopMode::Immediate).await;
    let body = until(port, "/healthz", |code, _| code == 503).await;
    assert!(body.contains("retrying, because: ") && body.contains("cannot connect"), "{body}");
    postgres.start_again().await.unwrap();
    until(port, "/healthz", |code, _| code == 200).await;
    let metrics = until(port, "/metrics", |code, _| code == 200).await;
    let errors = value(&metrics, "factlib_wal_replication_errors_total");
    assert!(errors >= 2.0, "{metrics}");
    assert_eq!(value(&metrics, r#"factlib_actor_restarts_total{actor="wal_reader"}"#), 1.0);
    drop((pipeline, broker));
}

#[actix_rt::test]
async fn idle_is_healthy_for_longer_than_the_limit() {
    let (broker, _, _, mut config) = scene().await;
    config.checkpoint.idle_interval = Duration::from_millis(200);
    let port = config.http.health_port.unwrap();
    let pipeline = start(&config).await;
    let idle = async {
        loop {
            assert_eq!(get(port, "/healthz").await.unwrap().0, 200);
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(4 * STUCK_AFTER, idle).await.expect_err("it looks for as long as it may");
    pipeline.shutdown().await.unwrap();
    drop(broker);
}

fn value(metrics: &str, name: &str) -> f64 {
    let line =
        metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|v| v.parse().ok()).unwrap_or(f64::NAN)
}

#[actix_rt::test]
async fn metrics_count_what_went_through_on_a_port_of_their_own() {
    let (broker, postgres, database, mut config) = scene().await;
    let port = free_port();
    config.http.metrics_port = Some(port);
    let pipeline = start(&config).await;
    for _ in 0..3 {
        emit(postgres, &database).await;
    }
    let sent = r#"factlib_kafka_produce_success_total{topic="factlib.user"}"#;
    let text = until(port, "/metrics", |_, body| value(body, sent) == 3.0).await;
    for (name, expected) in [
        ("factlib_events_consumed_total", 3.0),
        (r#"factlib_kafka_produce_failure_total{topic="factlib.user"}"#, 0.0),
        ("factlib_wal_replication_errors_total", 0.0),
        ("factlib_running", 1.0),
        ("factlib_window_bytes", 16.0 * 1024.0 * 1024.0),
    ] {
        assert_eq!(value(&text, name), expected, "{name} in\n{text}");
    }
    let saved = "factlib_wal_saved_lsn_bytes";
    until(port, "/metrics", |_, body| value(body, saved) > value(&text, saved)).await;
    assert_eq!(get(port, "/healthz").await.unwrap().0, 404);
    assert_eq!(get(config.http.health_port.unwrap(), "/metrics").await.unwrap().0, 404);
    pipeline.shutdown().await.unwrap();
    drop(broker);
}

#[actix_rt::test]
async fn a_port_in_use_is_a_mistake_in_the_configuration() {
    let (_broker, _, _, mut config) = scene().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    config.http.metrics_port = Some(port);
    let error = Pipeline::builder().config(config).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    let start = format!("cannot listen on 127.0.0.1:{port} for http.metrics_port: ");
    assert!(text.starts_with(&start), "{text}");
    assert!(text.ends_with("(set http.metrics_port to a port that is free)"), "{text}");
}
