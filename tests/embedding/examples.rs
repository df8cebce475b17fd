//! Each example does what it says, on the real servers.

use std::time::Duration;

use factlib::{
    emit::{Emitter, Fact},
    proto::OutboxEvent,
    testing::{read_topic, wait_for_count},
};
use prost::Message;
use tokio::sync::oneshot;

use crate::support::{Bed, History, Workload, bed::LIMIT, probe::get};

#[path = "../../examples/checkpoint_store.rs"]
mod checkpoint_store;
#[path = "../../examples/database.rs"]
mod database;
#[path = "../../examples/embedded.rs"]
pub mod embedded;
#[path = "../../examples/fan_out.rs"]
mod fan_out;
#[path = "../../examples/own_thread.rs"]
mod own_thread;
#[path = "../../examples/record_sink.rs"]
mod record_sink;
#[path = "../../examples/relay.rs"]
mod relay;
#[path = "../../examples/transform.rs"]
mod transform;

/// A moment that the test decides on.
fn stop() -> (oneshot::Sender<()>, impl Future<Output = ()>) {
    let (now, stopped) = oneshot::channel();
    (now, async { stopped.await.expect("the test says when") })
}

#[actix::test]
async fn relay_relays() {
    let bed = Bed::shared("example_relay").await;
    let (now, stopped) = stop();
    let running = actix_rt::spawn(relay::relay(bed.config.clone(), stopped));
    let slot = async {
        while bed.saved().await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, slot).await.expect("the relay has started");
    let history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    now.send(()).expect("still running");
    running.await.expect("no panic").expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn two_relays_live_in_an_application_and_end_without_it() {
    let (one, two) = tokio::join!(Bed::shared("example_web"), Bed::shared("example_web2"));
    let mut ends = Vec::new();
    let mut places = Vec::new();
    for bed in [&one, &two] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        places.push(listener.local_addr().expect("bound").port());
        let (now, stopped) = stop();
        let config = bed.config.clone();
        let serving = actix_rt::spawn(async move {
            embedded::serve(config, listener, stopped).await.map_err(|error| error.to_string())
        });
        ends.push((now, serving));
    }
    for place in &places {
        // The listener queues what comes before the application runs.
        assert_eq!(get(*place, "/").await.expect("an answer").1, "the application");
        let ready = async {
            while get(*place, "/relay/readyz").await.expect("an answer").0 != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, ready).await.expect("it relays");
        assert_eq!(get(*place, "/relay/healthz").await.expect("an answer").0, 200);
        let status = get(*place, "/relay/status.json").await.expect("an answer").1;
        assert!(status.contains("\"state\":\"running\""), "{status}");
        let metrics = get(*place, "/relay/metrics").await.expect("an answer").1;
        assert!(metrics.contains("factlib_build_info{"), "{metrics}");
    }
    let mut ends = ends.into_iter();
    let (now, serving) = ends.next().expect("the first");
    now.send(()).expect("still running");
    serving.await.expect("no panic").expect("a clean stop");
    // The other one goes on.
    let history = Workload::new(&two.name, 100).emit(&mut two.client().await).await;
    two.delivered(&history).await;
    let (now, serving) = ends.next().expect("the second");
    now.send(()).expect("still running");
    serving.await.expect("no panic").expect("a clean stop");
}

#[tokio::test]
async fn own_thread_relays_without_an_actix_system() {
    let bed = Bed::shared("example_thread").await;
    let (now, stopped) = stop();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = free.expect("a port").port();
    let running = tokio::spawn(own_thread::serve(bed.config.clone(), port, stopped));
    let ready = async {
        while get(port, "/readyz").await.is_none_or(|(code, _)| code != 200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("it relays");
    let history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    now.send(()).expect("still running");
    running.await.expect("no panic").expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn transform_keeps_the_address_back() {
    let bed = Bed::shared("example_transform").await;
    let pipeline = transform::pipeline(bed.config.clone()).start().await.expect("it starts");
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let emitter = Emitter::new(bed.name.clone());
    for (event_type, payload) in [
        ("user.logged_in", r#"{}"#),
        ("user.created", r#"{"name":"Ada","email":"ada@example.org"}"#),
        ("user.created", r#"["Ada"]"#),
    ] {
        let fact = Fact::new("user", "u1", event_type).payload(payload);
        emitter.emit(&transaction, fact).await.expect("emitted");
    }
    transaction.commit().await.expect("a commit");
    let topics = [format!("{}.user", bed.name), bed.config.dead_letter_topic()];
    for topic in &topics {
        let bootstrap = bed.kafka.admin_bootstrap();
        wait_for_count(&bootstrap, &[topic], 1, LIMIT).await.expect("a record");
    }
    pipeline.shutdown().await.expect("a clean stop");
    let records = read_topic(&bed.kafka.admin_bootstrap(), &topics[0]).await.expect("a topic");
    assert_eq!(records.len(), 1);
    let event = OutboxEvent::decode(records[0].value.clone().expect("a value")).expect("an event");
    assert_eq!(&event.payload[..], br#"{"name":"Ada"}"#);
    assert_eq!(records[0].header("redacted").map(|value| &value[..]), Some(&b"email"[..]));
}

#[actix::test]
async fn database_writes_each_event_once_also_after_a_crash() {
    let mut bed = Bed::shared("example_database").await;
    bed.config.kafka.brokers = vec!["127.0.0.1:1".into()];
    // What was delivered is not saved for long: the crash repeats it.
    bed.config.checkpoint.interval = LIMIT;
    let reports = bed.postgres.create_database("reports").await.expect("a database");
    let url = bed.postgres.url_for(&reports);
    let start = async || database::pipeline(bed.config.clone(), url.clone()).start().await;
    let pipeline = start().await.expect("it starts");
    let users = Workload { aggregate_types: vec!["user".into()], ..Workload::new(&bed.name, 300) };
    let mut history = users.emit(&mut bed.client().await).await;
    let reader = bed.postgres.connect(&reports).await.expect("a session");
    let seen = async |least: usize| {
        let count = async {
            loop {
                let query = "SELECT count(*), count(DISTINCT event_id) FROM users_seen";
                // The table comes with the first event.
                if let Ok(row) = reader.query_one(query, &[]).await
                    && row.get::<_, i64>(0) as usize >= least
                {
                    return (row.get::<_, i64>(0) as usize, row.get::<_, i64>(1) as usize);
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, count).await.expect("the events are written")
    };
    seen(300).await;
    drop(pipeline);
    bed.config.checkpoint.interval = std::time::Duration::from_millis(200);
    let more = Workload { aggregate_prefix: "b", ..users };
    history.merge(more.emit(&mut bed.client().await).await);
    let pipeline = database::pipeline(bed.config.clone(), url.clone()).start().await;
    let pipeline = pipeline.expect("it starts again");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    assert_eq!(seen(600).await, (history.len(), history.len()));
}

#[actix::test]
async fn fan_out_sends_each_fact_to_its_topics() {
    let bed = Bed::shared("example_fan_out").await;
    let pipeline = fan_out::pipeline(bed.config.clone()).start().await.expect("it starts");
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let emitter = Emitter::new(bed.name.clone());
    for (kind, event_type) in
        [("order", "order.placed"), ("order", "order.paid"), ("user", "user.left"), ("tests", "x")]
    {
        let fact = Fact::new(kind, "7", event_type).payload("{}").metadata("tenant", "acme");
        emitter.emit(&transaction, fact).await.expect("emitted");
    }
    transaction.commit().await.expect("a commit");
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().events_filtered, 1);
    pipeline.shutdown().await.expect("a clean stop");
    for (topic, key, count) in [
        ("orders", "7", 2),
        ("orders.placed", "7", 1),
        ("orders.paid", "7", 1),
        ("user", "user/7", 1),
        ("audit", "user/7", 1),
    ] {
        let topic = format!("{}.{topic}", bed.name);
        let sent = read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("a topic");
        assert_eq!(sent.len(), count, "{topic}: {sent:?}");
        for record in &sent {
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()), "{topic}");
            let tenant = record.header("tenant").map(|tenant| &tenant[..] == b"acme");
            assert_eq!(tenant, topic.contains(".orders").then_some(true), "{topic}");
        }
    }
}

#[actix::test]
async fn record_sink_writes_a_line_an_event() {
    let mut bed = Bed::shared("example_sink").await;
    bed.config.kafka.brokers = vec!["127.0.0.1:1".into()];
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("events.jsonl");
    let pipeline = record_sink::pipeline(bed.config.clone(), file.clone()).start().await;
    let pipeline = pipeline.expect("it starts");
    let history = Workload::new(&bed.name, 50).emit(&mut bed.client().await).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let lines = std::fs::read_to_string(file).expect("the file");
    assert_eq!(lines.lines().count(), history.len());
    assert!(lines.lines().all(|line| line.contains("\"payload\":\"{")), "{lines}");
}

#[actix::test]
async fn checkpoint_store_repeats_nothing_after_a_stop() {
    let bed = Bed::shared("example_store").await;
    let operators = bed.postgres.create_database("operators").await.expect("a database");
    let url = bed.postgres.url_for(&operators);
    let mut history = History::default();
    for (round, prefix) in ["a", "b"].into_iter().enumerate() {
        let pipeline = checkpoint_store::pipeline(bed.config.clone(), url.clone());
        let pipeline = pipeline.start().await.expect("it starts");
        let workload = Workload {
            aggregate_prefix: prefix,
            seed: round as u64,
            ..Workload::new(&bed.name, 100)
        };
        history.merge(workload.emit(&mut bed.client().await).await);
        bed.delivered(&history).await;
        pipeline.shutdown().await.expect("a clean stop");
    }
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
