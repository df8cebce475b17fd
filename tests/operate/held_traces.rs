//! `factlib trace` for held events: refused, waiting behind a refused one, held for one topic and
//! delivered to another, redriven; with receipts and without.

use std::{process::Stdio, time::Duration};

use factlib::{
    config::{DeliveryMode, ReceiptStore, RefusalPolicy, Route},
    emit::Fact,
    testing::create_topic,
};
use prost::Message;
use tokio::{process::Command, time::timeout};

use crate::support::{Bed, bed::LIMIT, records::emit};

/// Kafka takes no time that is more than an hour ahead, if nobody says otherwise.
const FAR_AHEAD_MS: u64 = 4_000_000_000_000;

/// The setting that a topic refuses such times for, and a value with which it takes them.
const TAKES_ALL: (&str, &str) = ("message.timestamp.after.max.ms", "9000000000000");

/// Exit code and output of the real command, with the bed's configuration in a file.
async fn type_in(bed: &Bed<'_>, words: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("factlib.toml");
    let store = format!("{:?}", bed.config.receipts.store).to_lowercase();
    let mode = match bed.config.delivery.mode {
        DeliveryMode::ExactlyOnce => "exactly-once",
        _ => "at-least-once",
    };
    let text = format!(
        "[receipts]\nstore = {store:?}\n[delivery]\nmode = {mode:?}\n\
         [dead_letter]\npolicy = \"hold-aggregate\"\n\
         [[route]]\nmatch.aggregate_type = \"both\"\ntopic = {:?}\n[[route]]\n",
        both(bed)
    );
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.env_clear().args(words).args(["--log-level", "error", "--prefix", &bed.name]);
    command.args(["--slot", &bed.name, "--publication", &bed.name]);
    command.args(["--config", file.to_str().expect("UTF-8")]);
    command.args(["--postgres-url", &bed.postgres.url_for(&bed.database)]);
    command.args(["--brokers", &bed.kafka.admin_bootstrap()]);
    let output = timeout(LIMIT, command.stdin(Stdio::null()).output()).await;
    let output = output.expect("it ends").expect("it runs");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
    (output.status.code(), text.concat())
}

/// Traces an event that was only emitted as a message, and looks into no other topics.
async fn trace(bed: &Bed<'_>, id: &str) -> (Option<i32>, String) {
    let nowhere = format!("{}.nowhere", bed.name);
    type_in(bed, &["trace", id, "--no-table", "--topics", &nowhere]).await
}

/// The topics of the aggregates `both`: the first refuses times far ahead, the second takes them.
fn both(bed: &Bed<'_>) -> [String; 2] {
    ["refusing", "taking"].map(|name| format!("{}.{name}", bed.name))
}

async fn held_events_are_told(store: ReceiptStore, mode: DeliveryMode) {
    let mut bed = Bed::shared("held_trace").await;
    bed.config.receipts.store = store;
    bed.config.delivery.mode = mode;
    bed.config.dead_letter.policy = RefusalPolicy::HoldAggregate;
    bed.config.pipeline.restart_backoff = Duration::from_millis(50);
    bed.config.checkpoint.interval = Duration::from_millis(100);
    let [refusing, taking] = both(&bed);
    bed.config.route =
        vec![Route::of("both").to(refusing.clone()).to(taking.clone()), Route::default()];
    let (user, admin) = (format!("{}.user", bed.name), bed.kafka.admin_bootstrap());
    create_topic(&admin, &taking, 1, &[TAKES_ALL]).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |kind: &str| Fact::new(kind, "u1", "changed").payload("{}");
    let events = emit(&bed, &[fact("user").timestamp_ms(FAR_AHEAD_MS), fact("user")]).await;
    let of_two = emit(&bed, &[fact("both").timestamp_ms(FAR_AHEAD_MS)]).await;
    // The table has the beginning of its id.
    let mut long = fact("user").to_event().expect("valid");
    long.id = "ü".repeat(1_000);
    let message = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    let bytes = long.encode_to_vec();
    bed.client().await.execute(message, &[&bed.name, &bytes]).await.expect("a message");
    bed.confirmed(bed.wal_end().await).await;
    let [first, waiting] = &events[..] else { panic!("two events") };
    let [partly] = &of_two[..] else { panic!("one event") };

    let (code, out) = trace(&bed, &first.id).await;
    assert!(out.contains(&format!(" instead of {user} since 2")), "{out}");
    assert!(out.contains("held       held:") && out.contains("takes no record of the time"));
    assert_eq!((code, out.contains("nothing is left to read")), (Some(1), false), "{out}");
    for event in [waiting, &long] {
        let (code, out) = trace(&bed, &event.id).await;
        assert!(out.contains("held       held:") && code == Some(1), "{out}");
        assert!(out.contains("an earlier event of its aggregate can't be delivered"), "{out}");
    }
    let (code, out) = trace(&bed, &partly.id).await;
    assert!(out.contains(&format!(" instead of {refusing} since 2")), "{out}");
    let is_receipted = out.contains(&format!("delivered  {taking} 0:"));
    assert_eq!(is_receipted, store != ReceiptStore::Off, "{out}");
    assert_eq!(code, Some(1), "{out}");

    for topic in [&user, &refusing] {
        bed.set(topic, TAKES_ALL.0, TAKES_ALL.1).await;
    }
    let (code, out) = type_in(&bed, &["dead-letter", "redrive", "--all"]).await;
    assert_eq!(code, Some(0), "{out}");
    for (event, topic) in [(first, &user), (waiting, &user), (&long, &user), (partly, &refusing)] {
        let (code, out) = trace(&bed, &event.id).await;
        assert!(out.contains("redriven   held:"), "{out}");
        assert!(out.contains(&format!(" to {topic} at 2")), "{out}");
        assert_eq!((code, out.contains("nothing is left to read")), (Some(0), false), "{out}");
    }
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_trace_tells_of_held_events_without_receipts() {
    held_events_are_told(ReceiptStore::Off, DeliveryMode::AtLeastOnce).await;
}

#[actix::test]
async fn a_trace_tells_of_held_events_beside_the_table_of_receipts() {
    held_events_are_told(ReceiptStore::Table, DeliveryMode::AtLeastOnce).await;
}

#[actix::test]
async fn a_trace_tells_of_held_events_beside_the_topic_of_receipts() {
    held_events_are_told(ReceiptStore::Topic, DeliveryMode::AtLeastOnce).await;
    held_events_are_told(ReceiptStore::Topic, DeliveryMode::ExactlyOnce).await;
}
