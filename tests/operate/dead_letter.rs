//! `factlib dead-letter`, the real command on the real servers: what a pipeline parked
//! is listed, shown and sent again, once.

use std::{
    collections::BTreeMap,
    process::{Command, Output, Stdio},
};

use bytes::Bytes;
use factlib::{
    config::{RefusalPolicy, StoreKind},
    emit::Fact,
    proto::{OutboxEvent, TraceInfo},
    testing::{ConsumedRecord, create_topic, read_topic, wait_for_count},
};
use prost::Message;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::support::{Bed, bed::LIMIT, records::emit};

/// Bytes that are no protobuf.
const MALFORMED: &[u8] = b"\xff\xff no protobuf";

fn event(id: &str, aggregate_type: &str, aggregate_id: &str) -> OutboxEvent {
    OutboxEvent {
        id: id.into(),
        aggregate_type: aggregate_type.into(),
        aggregate_id: aggregate_id.into(),
        event_type: "happened".into(),
        ..Default::default()
    }
}

/// Nothing that compression makes small.
fn noise(bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(4) as u32).map(|i| i.wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_le_bytes).collect()
}

/// Has a pipeline park what is emitted.
async fn park(bed: &Bed<'_>, emitted: &[Vec<u8>]) {
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let client = bed.client().await;
    for bytes in emitted {
        let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
        client.execute(emit, &[&bed.name, bytes]).await.expect("a message is emitted");
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

/// The command with the bed's settings.
fn command(bed: &Bed<'_>, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
    command
        .env_clear()
        .current_dir(bed.postgres.socket_dir())
        .args(["dead-letter"])
        .args(line.split(' ').map(|word| if word == "''" { "" } else { word }))
        .env("MASTER_DATABASE_URL", bed.postgres.url_for(&bed.database))
        .env("KAFKA_BROKERS", bed.kafka.bootstrap())
        .args(["--slot", &bed.name, "--publication", &bed.name, "--prefix", &bed.name])
        .args(["--log-level", "error"]);
    command
}

/// Exit code, stdout, stderr.
async fn run(bed: &Bed<'_>, line: &str) -> (Option<i32>, String, String) {
    let (code, out, err) = run_raw(bed, line).await;
    (code, String::from_utf8(out).expect("UTF-8"), err)
}

async fn run_raw(bed: &Bed<'_>, line: &str) -> (Option<i32>, Vec<u8>, String) {
    let mut command = command(bed, line);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends");
    let Output { status, stdout, stderr } = output.expect("no panic").expect("the command runs");
    (status.code(), stdout, String::from_utf8(stderr).expect("UTF-8"))
}

async fn list_json(bed: &Bed<'_>) -> Vec<serde_json::Value> {
    let (code, out, err) = run(bed, "list --json").await;
    assert_eq!((code, err), (Some(0), String::new()));
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn records(bed: &Bed<'_>, topic: &str) -> Vec<ConsumedRecord> {
    read_topic(&bed.kafka.admin_bootstrap(), topic).await.expect("a topic")
}

fn headers(record: &ConsumedRecord) -> BTreeMap<&str, &str> {
    let text = |value| std::str::from_utf8(value).expect("text");
    record.headers.iter().map(|(key, value)| (key.as_str(), text(value))).collect()
}

#[actix::test]
async fn without_the_topic_there_are_no_dead_letters() {
    let bed = Bed::shared("none").await;
    let none = "no dead letters\n";
    for (line, said) in [("list", none), ("list --json", ""), ("redrive --all", none)] {
        assert_eq!(run(&bed, line).await, (Some(0), String::new(), said.into()), "{line}");
    }
    for line in ["show 0:0", "redrive 0:0"] {
        let (code, out, err) = run(&bed, line).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
    }
}

#[actix::test]
async fn servers_that_are_away_are_one_line_that_says_why() {
    let mut bed = Bed::shared("away").await;
    bed.config.kafka.topics.partitions = Some(1);
    for line in ["list", "show 0:0", "redrive --all"] {
        let away = format!("{line} --set kafka.brokers=127.0.0.1:1");
        let (code, out, err) = run(&bed, &away).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(4), "", 1), "{err}");
        assert!(err.contains("Connection refused"), "{err}");
    }
    park(&bed, &[MALFORMED.to_vec()]).await;
    for line in ["list", "show 0:0", "redrive --all"] {
        let away = format!("{line} --set postgres.url=postgresql://u@127.0.0.1:1/x");
        let (code, out, err) = run(&bed, &away).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(3), "", 1), "{err}");
    }
}

#[actix::test]
async fn letters_are_listed_and_shown() {
    let mut bed = Bed::shared("listed").await;
    bed.config.kafka.topics.partitions = Some(1);
    let trace = TraceInfo {
        trace_id: "4bf9".into(),
        span_id: "00f0".into(),
        metadata: [("tenant".to_owned(), "7".to_owned())].into(),
    };
    let happened = OutboxEvent {
        payload: Bytes::from_static(b"{\"a\":1}\n"),
        metadata: [("source".to_owned(), "test".to_owned())].into(),
        trace_info: Some(trace),
        ..event("id-1", "with space", "the\tkey")
    };
    let emitted = [MALFORMED.to_vec(), happened.encode_to_vec()];
    park(&bed, &emitted).await;

    let (code, out, err) = run(&bed, "list").await;
    assert_eq!((code, err), (Some(0), String::new()));
    let lines: Vec<Vec<_>> = out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 2, "{out}");
    let bytes = emitted[1].len().to_string();
    assert_eq!(lines[1][0], "0:1");
    assert!(lines[1][1].starts_with("20") && lines[1][1].ends_with('Z'), "{out}");
    assert_eq!(lines[1][2..8], ["-", "id-1", "the\\tkey", "happened", &bytes, "-"]);
    assert!(lines[1][8].contains("legal topic name"), "{out}");
    assert!(lines[0][8].contains("is no OutboxEvent"), "{out}");

    for (line, count) in [
        ("list --limit 1", 1),
        ("list --limit 0", 0),
        ("list --topic ''", 2),
        ("list --topic other", 0),
        ("list --since 1h", 2),
        ("list --since 0s", 0),
    ] {
        let (code, out, _) = run(&bed, line).await;
        assert_eq!((code, out.lines().count()), (Some(0), count), "{line}");
    }
    let letters = list_json(&bed).await;
    assert_eq!(letters[1]["key"], "the\tkey");
    assert_eq!(letters[1]["source_topic"], serde_json::Value::Null);
    assert_eq!(letters[1]["redriven_at"], serde_json::Value::Null);

    let (code, out, _) = run(&bed, "show 0:1").await;
    assert_eq!(code, Some(0));
    let words = |name: &str| {
        let line = out.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (name, line) in [
        ("redriven", "redriven no"),
        ("dead_letter_error", &format!("dead_letter_error {}", words("error").split_off(6))),
        ("aggregate_type", "aggregate_type with space"),
        ("metadata", "metadata source = test"),
        ("trace metadata", "trace metadata tenant = 7"),
        ("tenant", "tenant 7"),
        ("payload", "payload {\"a\":1}\\n"),
    ] {
        assert_eq!(words(name), line, "{out}");
    }
    let (_, out, _) = run(&bed, "show 0:0").await;
    assert!(out.contains("base64 //8gbm8gcHJvdG9idWY="), "{out}");
    for (position, bytes) in [("0:0", &emitted[0]), ("0:1", &emitted[1])] {
        let (code, raw, _) = run_raw(&bed, &format!("show {position} --raw")).await;
        assert_eq!((code, &raw), (Some(0), bytes));
    }
    for (line, why) in [("show 0:2", "has 0 to 1"), ("show 9:0", "has 1 partitions")] {
        let (code, out, err) = run(&bed, line).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(why), "{err}");
    }
}

#[actix::test]
async fn a_letter_is_sent_again_once_as_it_was() {
    let bed = Bed::shared("once").await;
    let trace = TraceInfo { trace_id: "t".into(), span_id: "s".into(), ..Default::default() };
    let happened =
        OutboxEvent { trace_info: Some(trace), ..event("id-1", "with space", "the key") };
    park(&bed, &[MALFORMED.to_vec(), happened.encode_to_vec()]).await;

    let (code, _, err) = run(&bed, "redrive --all").await;
    assert_eq!((code, err.matches("--to-topic TOPIC").count()), (Some(2), 2), "{err}");
    let to = format!("{}.repaired", bed.name);
    let all = format!("redrive --all --to-topic {to}");
    let (code, out, err) = run(&bed, &format!("{all} --dry-run")).await;
    assert_eq!((code, out.matches(" would go to ").count()), (Some(0), 2), "{err}");
    let (code, _, err) = run(&bed, &all).await;
    let done = "redriven 2, redriven before 0, not redriven 0\n";
    assert_eq!((code, err.as_str()), (Some(0), done));

    let sent = records(&bed, &to).await;
    assert_eq!(sent.len(), 2);
    let record = sent.iter().find(|r| r.header("event_id") == Some(&Bytes::from("id-1")));
    let record = record.expect("the event");
    assert_eq!(record.key.as_deref(), Some(&b"the key"[..]));
    assert_eq!(record.value.as_deref(), Some(&happened.encode_to_vec()[..]));
    let letters = list_json(&bed).await;
    let letter = letters.iter().find(|letter| letter["event_id"] == "id-1").expect("the letter");
    let position = letter["position"].as_str().expect("a text");
    let from = format!("{}/{position}", bed.config.dead_letter_topic());
    let lsn = letter["lsn"].as_str().expect("a text");
    let expected = [
        ("LSN", lsn),
        ("event_id", "id-1"),
        ("event_type", "happened"),
        ("redriven_from", &from),
        ("span_id", "s"),
        ("trace_id", "t"),
    ];
    assert_eq!(headers(record), expected.into());
    assert!(sent.iter().any(|record| record.value.as_deref() == Some(MALFORMED)));
    assert!(letters.iter().all(|letter| letter["redriven_at"].is_string()), "{letters:?}");

    let (code, _, err) = run(&bed, &all).await;
    let done = "redriven 0, redriven before 2, not redriven 0\n";
    assert_eq!((code, err.as_str()), (Some(0), done));
    let one = format!("redrive {position} {position} --to-topic {to}");
    let (code, _, err) = run(&bed, &one).await;
    assert!(code == Some(0) && err.contains("--again sends it again"), "{err}");
    assert_eq!(records(&bed, &to).await.len(), 2);
    let (code, _, err) = run(&bed, &format!("{one} --again")).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(records(&bed, &to).await.len(), 3);
}

/// Three that are too large for their topic, one of them by far, among small ones.
async fn too_large(bed: &Bed<'_>) -> (String, Vec<OutboxEvent>) {
    let topic = format!("{}.thing", bed.name);
    let limit = [("max.message.bytes", "20000")];
    create_topic(&bed.kafka.admin_bootstrap(), &topic, 3, &limit).await.expect("a topic");
    let large = [200_000, 700_000, 200_000].into_iter().enumerate().map(|(n, bytes)| {
        let payload = noise(bytes).into();
        OutboxEvent { payload, ..event(&format!("large {n}"), "thing", "one") }
    });
    let large: Vec<_> = large.collect();
    let small = event("small", "thing", "one").encode_to_vec();
    let emitted = large.iter().flat_map(|event| [event.encode_to_vec(), small.clone()]);
    park(bed, &emitted.collect::<Vec<_>>()).await;
    (topic, large)
}

async fn too_large_ones_go_once_the_limit_is_raised(bed: &Bed<'_>) {
    let (topic, large) = too_large(bed).await;
    let mut letters = list_json(bed).await;
    // Events of several batches may be parked in another order.
    letters.sort_by_key(|letter| letter["event_id"].to_string());
    let sizes: Vec<_> = letters.iter().filter_map(|letter| letter["bytes"].as_u64()).collect();
    assert_eq!(sizes, large.iter().map(|event| event.encoded_len() as u64).collect::<Vec<_>>());
    let position = letters[1]["position"].as_str().expect("a text");
    let (_, raw, _) = run_raw(bed, &format!("show {position} --raw")).await;
    assert_eq!(raw, large[1].encode_to_vec());

    // Each is refused, and each is named.
    let all = format!("redrive --all --topic {topic}");
    let (code, _, err) = run(bed, &all).await;
    assert_eq!((code, err.matches("raise max.message.bytes").count()), (Some(4), 3), "{err}");
    // One is refused, the others go.
    bed.set_limit(&topic, "400000").await;
    let (code, _, err) = run(bed, &all).await;
    assert_eq!((code, err.matches("raise max.message.bytes").count()), (Some(4), 1), "{err}");
    assert!(err.contains(&format!("dead letter {position} for {topic}")), "{err}");
    bed.set_limit(&topic, "2000000").await;
    for done in ["redriven 1, redriven before 2", "redriven 0, redriven before 3"] {
        let (code, _, err) = run(bed, &all).await;
        assert!(code == Some(0) && err.starts_with(done), "{err}");
    }

    let sent = records(bed, &topic).await;
    let sent: Vec<_> =
        sent.iter().filter(|record| record.header("redriven_from").is_some()).collect();
    let ids: Vec<_> = sent.iter().map(|record| headers(record)["event_id"]).collect();
    assert_eq!((ids.len(), ids[2]), (3, "large 1"), "the one that was refused comes last: {ids:?}");
    for record in sent {
        let event = large.iter().find(|event| event.id == headers(record)["event_id"]);
        let event = event.expect("one of those");
        assert_eq!(record.value.as_deref(), Some(&event.encode_to_vec()[..]));
        assert_eq!(record.key.as_deref(), Some(&b"one"[..]));
        assert!(headers(record).keys().all(|key| !key.starts_with("dead_letter")), "{record:?}");
    }
    let query = "SELECT count(*)::text FROM factlib.dead_letters WHERE redriven_at IS NOT NULL";
    assert_eq!(bed.postgres.query_text(&bed.database, query).await.expect("a count"), "3");
}

#[actix::test]
async fn what_was_too_large_goes_once_the_limit_is_raised() {
    let mut bed = Bed::shared("raised").await;
    bed.config.kafka.topics.partitions = Some(1);
    too_large_ones_go_once_the_limit_is_raised(&bed).await;
}

#[actix::test]
async fn what_was_too_large_goes_also_where_the_position_is_kept_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bed = Bed::shared("filed").await;
    bed.config.kafka.topics.partitions = Some(1);
    bed.config.checkpoint.store = StoreKind::File;
    bed.config.checkpoint.path = folder.path().join("checkpoint");
    too_large_ones_go_once_the_limit_is_raised(&bed).await;
}

#[actix::test]
async fn an_event_whose_texts_alone_are_too_large_is_parked_and_sent_again_whole() {
    let bed = Bed::shared("texts").await;
    let text = |c: &str| c.repeat(1_500_000 / c.len());
    let trace = TraceInfo { trace_id: text("t"), ..Default::default() };
    let noise: String = noise(3_000_000).iter().map(|b| char::from(b' ' + b % 90)).collect();
    let large = OutboxEvent {
        id: format!("a\0b{noise}"),
        aggregate_id: format!("ü{}", text("é")),
        event_type: text("x"),
        trace_info: Some(trace),
        ..event("", "thing", "")
    };
    park(&bed, &[large.encode_to_vec()]).await;
    let (code, raw, err) = run_raw(&bed, &format!("show {} --raw", position(&bed).await)).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(raw, large.encode_to_vec());

    let topic = format!("{}.thing", bed.name);
    bed.set_limit(&topic, "30000000").await;
    let (code, _, err) = run(&bed, "redrive --all").await;
    assert_eq!(code, Some(0), "{err}");
    let sent = records(&bed, &topic).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].key.as_deref(), Some(large.aggregate_id.as_bytes()));
    assert_eq!(sent[0].value.as_deref(), Some(&large.encode_to_vec()[..]));
    assert_eq!(headers(&sent[0])["event_id"], large.id);
    assert_eq!(headers(&sent[0])["trace_id"].len(), 1_500_000);
}

/// Of the one letter.
async fn position(bed: &Bed<'_>) -> String {
    let letters = list_json(bed).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters[0]["position"].as_str().expect("a text").to_owned()
}

#[actix::test]
async fn a_redrive_that_is_killed_repeats_one_letter_at_most() {
    const LETTERS: usize = 400;
    let bed = Bed::shared("killed").await;
    let emitted =
        (0..LETTERS).map(|n| event(&format!("{n:03}"), "with space", "one").encode_to_vec());
    park(&bed, &emitted.collect::<Vec<_>>()).await;
    let to = format!("{}.to", bed.name);
    let bootstrap = bed.kafka.admin_bootstrap();
    create_topic(&bootstrap, &to, 1, &[]).await.expect("a topic");
    let all = format!("redrive --all --to-topic {to}");
    let mut first = command(&bed, &all).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for_count(&bootstrap, &[&to], 50, LIMIT).await.expect("some are sent");
    first.kill().expect("it is killed");
    first.wait().expect("it ended");
    let before = records(&bed, &to).await.len();
    assert!(before < LETTERS, "killed too late to show anything");

    let (code, _, err) = run(&bed, &all).await;
    assert_eq!(code, Some(0), "{err}");
    let sent = records(&bed, &to).await;
    let mut ids: Vec<_> = sent.iter().map(|record| headers(record)["event_id"]).collect();
    assert!(ids.len() <= LETTERS + 1, "{} of {LETTERS}", ids.len());
    assert!(ids.is_sorted(), "in order");
    ids.dedup();
    assert_eq!(ids.len(), LETTERS, "all of them");
}

#[actix::test]
async fn a_topic_that_was_made_again_has_new_letters_at_the_old_places() {
    let mut bed = Bed::shared("again").await;
    bed.config.kafka.topics.partitions = Some(1);
    let to = format!("{}.to", bed.name);
    let all = format!("redrive --all --to-topic {to}");
    for round in 0..2 {
        park(&bed, &[event(&format!("round {round}"), "with space", "one").encode_to_vec()]).await;
        let (code, _, err) = run(&bed, &all).await;
        assert!(code == Some(0) && err.starts_with("redriven 1,"), "{err}");
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", bed.kafka.admin_bootstrap());
        let admin: AdminClient<DefaultClientContext> = client.create().expect("a client");
        let topic = bed.config.dead_letter_topic();
        admin.delete_topics(&[&topic], &AdminOptions::new()).await.expect("an answer");
    }
    assert_eq!(records(&bed, &to).await.len(), 2);
}

#[actix::test]
async fn held_events_are_listed_by_aggregate_redriven_in_line_and_dropped() {
    let mut bed = Bed::shared("held").await;
    bed.config.kafka.topics.partitions = Some(1);
    bed.config.dead_letter.policy = RefusalPolicy::HoldAggregate;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let fact = |id: &str| Fact::new("user", id.to_owned(), "happened");
    let ahead = |id: &str| fact(id).timestamp_ms(4_000_000_000_000);
    let facts = [ahead("u0"), fact("u0"), fact("u1"), ahead("u2"), fact("u0"), fact("u2")];
    let events = emit(&bed, &facts).await;
    bed.confirmed(bed.wal_end().await).await;

    let lines = list_json(&bed).await;
    let of = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("aggregate_id"), ["u0", "u2"]);
    assert_eq!(of("held_events"), [3, 2]);
    assert_eq!(of("event_id"), [events[0].id.as_str(), events[3].id.as_str()]);
    let first: Vec<_> =
        of("position").iter().map(|place| place.as_str().expect("a text").to_owned()).collect();
    let (code, out, _) = run(&bed, "list").await;
    let rows: Vec<Vec<_>> = out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((code, rows.len(), rows[0][2], rows[0][3]), (Some(0), 2, "user/u0", "3"), "{out}");
    assert!(rows[0][6].contains("takes no record of the time 4000000000000 ms"), "{out}");
    let (code, out, _) = run(&bed, &format!("show {}", first[0])).await;
    assert_eq!(code, Some(0));
    for text in ["of table factlib.held_events", &events[0].id, "takes no record of the time"] {
        assert!(out.contains(text), "{text} is not in\n{out}");
    }
    let (code, out, err) = run(&bed, &format!("redrive {} --dry-run", first[0])).await;
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out}{err}");
    let (code, out, err) = run(&bed, "redrive --all --to-topic elsewhere --dry-run").await;
    let to = |topic: &str| out.matches(&format!("would go to {topic},")).count();
    let counts = (to("elsewhere"), to(&format!("{}.user", bed.name)));
    assert_eq!((code, counts), (Some(0), (2, 3)), "the first of each line: {out}{err}");

    // The cause is there still: nothing of a line is sent before its first event.
    let (code, _, err) = run(&bed, "redrive --all").await;
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("redriven 0, redriven before 0, not redriven 2"), "{err}");
    let (code, out, err) = run(&bed, &format!("drop {}", first[1])).await;
    assert_eq!(code, Some(0), "{err}");
    let later = "later events of user/u2 are held: factlib dead-letter redrive held:";
    assert!(out.contains(&events[3].id) && out.contains(later), "{out}");
    let (code, _, err) = run(&bed, &format!("drop {}", first[1])).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no held event held:"), "{err}");
    let (code, _, err) = run(&bed, "drop 0:1").await;
    assert_eq!(code, Some(2));
    assert!(err.contains("only held events can be dropped: expected held:NUMBER"), "{err}");

    let topic = format!("{}.user", bed.name);
    bed.set(&topic, "message.timestamp.after.max.ms", "9000000000000").await;
    let (code, _, err) = run(&bed, "redrive --all").await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("redriven 4, redriven before 0, not redriven 0"), "{err}");
    assert_eq!(list_json(&bed).await, Vec::<serde_json::Value>::new());
    let more = emit(&bed, &[fact("u0"), fact("u2")]).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let sent = records(&bed, &topic).await;
    let of = |key: &str| {
        let of_key = sent.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes()));
        of_key.map(|record| headers(record)["event_id"].to_owned()).collect::<Vec<_>>()
    };
    let ids = |numbers: &[usize], last: usize| {
        let first = numbers.iter().map(|number| &events[*number]);
        first.chain([&more[last]]).map(|event| event.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("u0"), ids(&[0, 1, 4], 0), "in order, and what came later behind it");
    assert_eq!(of("u2"), ids(&[5], 1), "without the event that was dropped");
}
