//! Receipts in both stores on the real servers: `factlib trace` answers for each fate of an event.

use std::{
    collections::{HashMap, HashSet},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use factlib::{
    config::{DeliveryMode, ReceiptStore, Route, Unrouted},
    emit::{Emitter, Fact},
    receipts::{Fate, ReceiptReader},
    testing::{create_topic, read_topic},
};
use slog::{Discard, Logger, o};

use crate::support::{
    Bed,
    bed::{LIMIT, PARTITIONS},
    relay::Launch,
};

fn noise(ids: usize) -> String {
    (0..ids).map(|_| uuid::Uuid::new_v4().to_string()).collect()
}

/// Exit code and output of `factlib trace` for an event, with the bed's configuration in a file.
async fn trace(bed: &Bed<'_>, event_id: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("factlib.toml");
    let store = format!("{:?}", bed.config.receipts.store).to_lowercase();
    let routes = "[[route]]\nmatch.aggregate_type = \"noise\"\ndrop = true\n\
                  [[route]]\nmatch.aggregate_type = \"user\"\n";
    let text = format!("[receipts]\nstore = {store:?}\n[kafka]\nunrouted = \"ignore\"\n{routes}");
    std::fs::write(&config, text).expect("written");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.env_clear().args(["trace", event_id, "--log-level", "error", "--prefix", &bed.name]);
    command.args(["--slot", &bed.name]);
    command.args(["--no-table", "--topics", &format!("{}.user", bed.name)]);
    command.args(["--config", config.to_str().expect("UTF-8")]);
    command.args(["--postgres-url", &bed.postgres.url_for(&bed.database)]);
    command.args(["--brokers", &bed.kafka.admin_bootstrap()]);
    let running = command.stdin(Stdio::null()).output();
    let output = tokio::time::timeout(LIMIT, running).await.expect("it ends").expect("it runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn each_fate_is_told(store: ReceiptStore, mode: DeliveryMode) {
    let mut bed = Bed::shared("fates").await;
    bed.config.receipts.store = store;
    bed.config.delivery.mode = mode;
    bed.config.kafka.unrouted = Unrouted::Ignore;
    bed.config.route = vec![Route::of("noise").dropped(), Route::of("user")];
    let topic = format!("{}.user", bed.name);
    let small = [("max.message.bytes", "2000")];
    create_topic(&bed.kafka.admin_bootstrap(), &topic, PARTITIONS, &small).await.expect("a topic");
    let fact = |kind: &str, payload: String| Fact::new(kind, "1", "changed").payload(payload);
    let mut facts: Vec<_> = (0..20).map(|_| fact("user", "{}".into())).collect();
    // Too large for the topic, also compressed.
    facts.extend([
        fact("user", noise(200)),
        fact("noise", "{}".into()),
        fact("other", "{}".into()),
    ]);
    let ids: Vec<_> = facts.iter().map(|fact| fact.event_id().to_string()).collect();
    let emitter = Emitter::new(&bed.name);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let transaction = client.transaction().await.unwrap();
    emitter.emit_all(&transaction, &facts).await.unwrap();
    transaction.commit().await.unwrap();
    // A test of a service waits like this.
    let reader = ReceiptReader::open(&bed.config, &Logger::root(Discard, o!())).unwrap().unwrap();
    let awaited = reader.wait(&ids[0], LIMIT).await.expect("a receipt");
    assert!(
        matches!(awaited[..], [ref one] if matches!(one.fate, Fate::Delivered(_))),
        "{awaited:?}"
    );
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    for record in read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("readable") {
        let id = String::from_utf8_lossy(record.header("event_id").expect("an id"));
        let lsn = String::from_utf8_lossy(record.header("LSN").expect("a position"));
        let (code, out) = trace(&bed, &id).await;
        let place = format!("delivered  {topic} {}:{} at 2", record.partition, record.offset);
        assert!(out.contains(&place), "{out}{place}");
        assert!(out.contains(&format!("from {lsn} of slot {}", bed.name)), "{out}{lsn}");
        assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");
    }
    let (code, out) = trace(&bed, &ids[20]).await;
    let parked = format!("parked     {}.dead-letter ", bed.name);
    assert!(out.contains(&parked) && out.contains(&format!(" instead of {topic} at 2")), "{out}");
    assert!(out.contains("MESSAGE_TOO_LARGE") && code == Some(1), "{out}");
    let (code, out) = trace(&bed, &ids[21]).await;
    assert!(out.contains("filtered   by route[0] at 2") && code == Some(0), "{out}");
    let (code, out) = trace(&bed, &ids[22]).await;
    assert!(out.contains("filtered   no route takes it, at 2") && code == Some(0), "{out}");

    let transaction = client.transaction().await.unwrap();
    let waiting = emitter.emit(&transaction, fact("user", "{}".into())).await.unwrap();
    transaction.commit().await.unwrap();
    let (code, out) = trace(&bed, &waiting.to_string()).await;
    let none = format!("receipt    none in {}", reader.describe());
    assert!(out.contains(&none) && code == Some(1), "{out}");
    assert!(out.contains("a later event is not yet read, or in flight"), "{out}");
    let error = reader.wait(&waiting.to_string(), Duration::from_millis(10)).await;
    let error = error.expect_err("it is not delivered").to_string();
    assert!(error.contains("has no receipt in") && error.contains("after 10ms"), "{error}");
}

#[actix::test]
async fn a_trace_answers_from_the_topic_of_receipts() {
    each_fate_is_told(ReceiptStore::Topic, DeliveryMode::AtLeastOnce).await;
}

#[actix::test]
async fn a_trace_answers_from_the_receipts_of_transactions() {
    each_fate_is_told(ReceiptStore::Topic, DeliveryMode::ExactlyOnce).await;
}

#[actix::test]
async fn a_trace_answers_from_the_table_of_receipts() {
    each_fate_is_told(ReceiptStore::Table, DeliveryMode::AtLeastOnce).await;
}

/// Kills the relay while events flow, and holds the receipts against the records: each event has
/// one, and each receipt names a record of its event.
async fn no_delivered_event_lacks_a_receipt(store: &'static str, mode: &'static str, kills: u64) {
    const FACTS: usize = 120;
    let mut bed = Bed::shared("receipts_killed").await;
    bed.config.receipts.store = match store {
        "table" => ReceiptStore::Table,
        _ => ReceiptStore::Topic,
    };
    let relay = Launch::new(&bed, Arc::default());
    let relay = relay.set("receipts.store", store).set("delivery.mode", mode);
    let mut client = bed.client().await;
    let first = relay.start().await;
    let emitter = Emitter::new(&bed.name);
    let emitting = tokio::spawn(async move {
        let mut ids = Vec::new();
        for n in 0..FACTS {
            let fact = Fact::new("user", (n % 20).to_string(), "changed").payload("{}");
            let tx = client.transaction().await.expect("a transaction");
            ids.push(emitter.emit(&tx, fact).await.expect("emitted").to_string());
            tx.commit().await.expect("committed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ids
    });
    let mut running = first;
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(150 + kill * 70)).await;
        running.kill().await;
        running = relay.start().await;
    }
    let ids = emitting.await.expect("emitted");
    bed.confirmed(bed.wal_end().await).await;
    running.stop().await;
    let mut places: HashMap<String, HashSet<(i32, i64)>> = HashMap::new();
    let topic = format!("{}.user", bed.name);
    for record in read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("readable") {
        let id = String::from_utf8_lossy(record.header("event_id").expect("an id")).into_owned();
        places.entry(id).or_default().insert((record.partition, record.offset));
    }
    let reader = ReceiptReader::open(&bed.config, &Logger::root(Discard, o!())).unwrap().unwrap();
    for id in ids {
        let receipts = reader.find(&id, None).await.expect("readable");
        assert!(!receipts.is_empty(), "event {id} lacks a receipt");
        for receipt in receipts {
            let Fate::Delivered(record) = receipt.fate else { panic!("{receipt:?}") };
            let place = (record.partition, record.offset.expect("the broker knows it"));
            assert!(places[&id].contains(&place), "{place:?} of {id}: {:?}", places[&id]);
        }
    }
}

#[actix::test]
async fn no_kill_costs_a_receipt_in_the_topic() {
    no_delivered_event_lacks_a_receipt("topic", "at-least-once", 3).await;
}

#[actix::test]
async fn no_kill_costs_a_receipt_in_the_table() {
    no_delivered_event_lacks_a_receipt("table", "at-least-once", 2).await;
}

#[actix::test]
async fn no_kill_costs_a_receipt_in_a_transaction() {
    no_delivered_event_lacks_a_receipt("topic", "exactly-once", 2).await;
}
