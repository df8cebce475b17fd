//! Health, readiness and metrics, as a probe and as Prometheus see them.

use std::{net::TcpListener, time::Duration};

use bytesize::ByteSize;
use factlib::{
    ErrorKind, Pipeline, PipelineHandle,
    config::{Config, KafkaClient},
    emit::{Emitter, Fact},
    testing::{PostgresServer, fake_broker::FakeCluster, shared_postgres},
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::support::probe::{SOON, free_port, get, until};

const STUCK_AFTER: Duration = Duration::from_millis(700);

/// A broker and a database of their own, and the configuration of a relay between them.
async fn scene() -> (FakeCluster, &'static PostgresServer, String, Config) {
    let broker = FakeCluster::start().await.unwrap();
    broker.create_topic("factlib.user", 1).unwrap();
    let postgres = shared_postgres().await.unwrap();
    let database = postgres.create_database("ops").await.unwrap();
    let mut config = Config::default();
    config.postgres.url = postgres.url_for(&database).into();
    config.postgres.slot = database.clone();
    config.kafka.brokers = vec![broker.bootstrap()];
    config.kafka.client = KafkaClient::Pipelined;
    config.http.health_port = Some(free_port());
    config.http.metrics_port = config.http.health_port;
    config.http.stuck_after = STUCK_AFTER;
    (broker, postgres, database, config)
}

async fn emit(postgres: &PostgresServer, database: &str) {
    emit_large(postgres, database, 0).await;
}

async fn emit_large(postgres: &PostgresServer, database: &str, bytes: usize) {
    let mut client = postgres.connect(database).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let fact = Fact::new("user", "u1", "created").payload(vec![0; bytes]);
    Emitter::new("factlib").emit(&transaction, fact).await.unwrap();
    transaction.commit().await.unwrap();
}

async fn start(config: &Config) -> PipelineHandle {
    Pipeline::builder().config(config.clone()).start().await.unwrap()
}

#[actix_rt::test]
async fn ready_once_it_streams_and_never_before_or_after() {
    let (broker, _, _, config) = scene().await;
    let port = config.http.health_port.unwrap();
    broker.broker_down(1).await;
    let starting = actix_rt::spawn(Pipeline::builder().config(config).start());
    let body = until(port, "/readyz", |code, _| code == 503).await;
    assert!(body.contains(r#""ok":false"#), "{body}");
    broker.broker_up(1).await.unwrap();
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
    until_status(port, |status| status["events"] == 1).await;
    broker.broker_down(1).await;
    emit(postgres, &database).await;
    // The client may notice the broker's absence a little later than the relay stands still.
    let says_why = |body: &str| {
        body.contains("topic factlib.user (open), undelivered events: 1")
            && body.contains("Kafka: ")
    };
    until(port, "/healthz", |code, body| code == 503 && says_why(body)).await;
    broker.broker_up(1).await.unwrap();
    until(port, "/healthz", |code, _| code == 200).await;
    until_status(port, |status| status["events"] == 2).await;
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
    let away = |status: &Value| status["actors"]["wal_reader"]["blocked_by"] == "postgres";
    let status = until_status(port, away).await;
    let reader = &status["actors"]["wal_reader"];
    assert!(reader["last_error"].is_string() && reader["last_error_at"].is_u64(), "{status}");
    assert_eq!((&reader["restarts"], &status["lag"]["seconds"]), (&1.into(), &Value::Null));
    postgres.start_again().await.unwrap();
    until(port, "/healthz", |code, _| code == 200).await;
    let blocked = r#"factlib_blocked_seconds_total{actor="wal_reader",by="postgres"}"#;
    until(port, "/metrics", |_, body| value(body, blocked) > 0.0).await;
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
async fn the_status_says_who_waits_for_what_and_what_that_costs() {
    let (broker, postgres, database, mut config) = scene().await;
    config.http.stuck_after = SOON;
    config.pipeline.window = ByteSize::kib(16);
    config.pipeline.batch = ByteSize::kib(4);
    config.kafka.statistics_interval = Duration::from_millis(100);
    let port = config.http.health_port.unwrap();
    let topic = "factlib.user";
    let builder = Pipeline::builder().config(config.clone()).pause_topic(topic);
    let pipeline = builder.start().await.unwrap();
    // More than fits into the window.
    for _ in 0..16 {
        emit_large(postgres, &database, 4096).await;
    }
    let full = |status: &Value| {
        let reader = &status["actors"]["wal_reader"];
        let blocked = (&reader["state"], &reader["blocked_by"]);
        blocked == (&"blocked".into(), &"window".into())
            && status["topics"][topic]["blocked_by"] == "pause"
    };
    let status = until_status(port, full).await;
    assert!(status["lag"]["events"].as_u64().is_some_and(|events| events > 0), "{status}");
    assert!(status["lag"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");
    assert!(status["lag"]["bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{status}");
    pipeline.resume_topic(topic).expect("known");
    let through = |status: &Value| status["events"] == 16 && status["lag"]["bytes"] == 0;
    let status = until_status(port, through).await;
    let waited = |of: &Value, what: &str| of["blocked_seconds"][what].as_f64() > Some(0.0);
    let reader = &status["actors"]["wal_reader"];
    assert!(waited(reader, "window") && waited(&status["topics"][topic], "pause"), "{status}");
    assert_eq!((&reader["state"], &status["lag"]["events"]), (&"running".into(), &0.into()));
    assert_eq!(status["lag"]["seconds"], 0.0);
    // The state of brokers comes by itself.
    let answers = |status: &Value| {
        let brokers = status["kafka"]["brokers"].as_object().into_iter().flatten();
        brokers.into_iter().any(|(_, broker)| broker["connected"] == true)
    };
    until_status(port, answers).await;
    until(port, "/metrics", |_, body| body.contains("factlib_kafka_broker_up{broker=\"")).await;
    pipeline.shutdown().await.unwrap();
    let status: Value = serde_json::from_str(&get(port, "/status.json").await.unwrap().1).unwrap();
    assert_eq!(status["actors"]["router"]["state"], "stopped");
    drop(broker);
}

async fn until_status(port: u16, fits: impl Fn(&Value) -> bool) -> Value {
    let parse = |body: &str| serde_json::from_str::<Value>(body);
    let fits = |_, body: &str| parse(body).is_ok_and(|status| fits(&status));
    parse(&until(port, "/status.json", fits).await).unwrap()
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

#[cfg(feature = "metrics")]
#[actix_rt::test]
async fn pipelines_of_a_process_are_told_apart_in_one_recorder() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = std::sync::Arc::new(DebuggingRecorder::new());
    let snapshotter = recorder.snapshotter();
    let mut pipelines = Vec::new();
    for facts in 1..=2 {
        let (broker, postgres, database, config) = scene().await;
        let builder = Pipeline::builder().config(config).metrics_recorder(recorder.clone());
        let pipeline = builder.start().await.unwrap();
        for _ in 0..facts {
            emit(postgres, &database).await;
        }
        pipelines.push((broker, database, facts, pipeline));
    }
    let mut slots = Vec::new();
    for (_broker, slot, facts, pipeline) in pipelines {
        let delivered = async {
            while pipeline.status().events < facts {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, delivered).await.expect("all is delivered");
        pipeline.shutdown().await.unwrap();
        slots.push((slot, facts));
        // What is there at the end is written.
        drop(pipeline);
    }
    let snapshot = snapshotter.snapshot().into_vec();
    let value = |name: &str, labels: &[(&str, &str)]| {
        let mut all = snapshot.iter().map(|(key, _, _, value)| (key.key(), value));
        let found = all.find(|(key, _)| {
            let own = key.labels().map(|label| (label.key(), label.value()));
            key.name() == name && own.eq(labels.iter().copied())
        });
        found.unwrap_or_else(|| panic!("no {name} with {labels:?}")).1
    };
    for (slot, facts) in &slots {
        let (slot, topic) = (("slot", slot.as_str()), ("topic", "factlib.user"));
        let events = value("factlib_kafka_produce_success_total", &[slot, topic]);
        assert_eq!(*events, DebugValue::Counter(*facts));
        assert_eq!(*value("factlib_running", &[slot]), DebugValue::Gauge(0.0.into()));
        let latency = value("factlib_kafka_produce_latency_seconds", &[slot, topic]);
        assert!(matches!(latency, DebugValue::Histogram(seconds) if !seconds.is_empty()));
    }
}
