//! `factlib audit` and `factlib trace`, the real commands on the real servers: each fault that is
//! planted is found, and nothing in what the relay delivered; the fate of each event is told.

use std::{process::Stdio, time::Duration};

use factlib::{
    emit::{Emitter, Fact, schema},
    testing::{ConsumedRecord, create_topic, read_topic},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::support::{
    Bed,
    bed::{LIMIT, PARTITIONS},
};

const AGGREGATES: usize = 5;
const FACTS: usize = 60;

fn noise(ids: usize) -> String {
    (0..ids).map(|_| uuid::Uuid::new_v4().to_string()).collect()
}

fn id(record: &ConsumedRecord) -> String {
    String::from_utf8_lossy(record.header("event_id").expect("an id")).into_owned()
}

async fn produce(bootstrap: &str, topic: &str, records: &[ConsumedRecord]) {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a producer");
    for record in records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(&value[..]) })
        });
        let mut copy =
            FutureRecord::<[u8], [u8]>::to(topic).partition(record.partition).headers(headers);
        copy.key = record.key.as_deref();
        copy.payload = record.value.as_deref();
        producer.send(copy, Duration::from_secs(10)).await.expect("acknowledged");
    }
}

/// Exit code, stdout, stderr of a command on the servers of this bed.
async fn type_in(bed: &Bed<'_>, line: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.env_clear().current_dir(bed.postgres.socket_dir());
    command.args(line).args(["--log-level", "error", "--prefix", &bed.name]);
    command.args(["--postgres-url", &bed.postgres.url_for(&bed.database)]);
    command.args(["--brokers", &bed.kafka.admin_bootstrap()]);
    let running = command.stdin(Stdio::null()).output();
    let output = tokio::time::timeout(LIMIT, running).await.expect("it ends").expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Exit code, the faults as `kind id`, and all that was said.
async fn audit(bed: &Bed<'_>, prefix: &str, more: &str) -> (Option<i32>, Vec<String>, String) {
    let prefix = format!("kafka.topic_prefix={prefix}");
    let line = ["audit", "--json", "--until", "2100-01-01T00:00:00Z", "--set", &prefix];
    let line: Vec<&str> = line.into_iter().chain(more.split_whitespace()).collect();
    let (code, out, err) = type_in(bed, &line).await;
    let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let faults = lines.filter(|line| line.get("kind").is_some());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let faults =
        faults.map(|fault| format!("{} {}", text(&fault["kind"]), text(&fault["event_id"])));
    (code, faults.collect(), format!("{out}{err}"))
}

#[actix::test]
async fn an_audit_finds_what_is_planted_and_nothing_else() {
    let bed = Bed::shared("audit").await;
    let mut client = bed.client().await;
    client.batch_execute(&schema::outbox_table("outbox_events").unwrap()).await.unwrap();
    let facts: Vec<_> = (0..FACTS)
        .map(|n| {
            let aggregate = format!("u{}", n % AGGREGATES);
            Fact::new("user", &aggregate, "user.changed").payload(format!("{{\"n\":{n}}}"))
        })
        .collect();
    // The slot has to be older than the facts.
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let transaction = client.transaction().await.unwrap();
    Emitter::archive(&bed.name, "outbox_events").emit_all(&transaction, &facts).await.unwrap();
    transaction.commit().await.unwrap();
    let topic = format!("{}.user", bed.name);
    let bootstrap = bed.kafka.admin_bootstrap();
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let (code, faults, said) = audit(&bed, &bed.name, "").await;
    assert_eq!((code, faults.len()), (Some(0), 0), "{said}");
    assert!(said.contains(&format!("\"expected\":{FACTS}")), "{said}");

    let clean = read_topic(&bootstrap, &topic).await.expect("the topic");
    let of_one_aggregate =
        |(at, record): (usize, &ConsumedRecord)| (record.key == clean[0].key).then_some(at);
    let places: Vec<_> = clean.iter().enumerate().filter_map(of_one_aggregate).collect();
    let (second, third, last) = (places[1], places[2], places[places.len() - 1]);
    let event = |at: usize| id(&clean[at]);
    type Plant = Box<dyn Fn(&mut Vec<ConsumedRecord>)>;
    let plants: Vec<(&str, Plant, Vec<String>)> = vec![
        (
            "lost",
            Box::new(move |r| drop(r.remove(second))),
            vec![format!("lost {}", event(second))],
        ),
        (
            "lost_at_the_end",
            Box::new(move |r| drop(r.remove(last))),
            vec![format!("lost {}", event(last))],
        ),
        (
            "repeated_at_once",
            Box::new(move |r| r.insert(second, r[second].clone())),
            vec![format!("repeated {}", event(second))],
        ),
        (
            "repeated_later",
            Box::new(move |r| r.push(r[second].clone())),
            vec![format!("repeated {}", event(second))],
        ),
        (
            "swapped",
            Box::new(move |r| r.swap(second, third)),
            vec![format!("out-of-order {}", event(second))],
        ),
        (
            "changed_byte",
            Box::new(move |r| {
                let mut value = r[second].value.clone().unwrap_or_default().to_vec();
                value[3] ^= 1;
                r[second].value = Some(value.into());
            }),
            vec![format!("changed-value {}", event(second))],
        ),
        (
            "emptied",
            Box::new(move |r| r[second].value = None),
            vec![format!("changed-value {}", event(second))],
        ),
        (
            "changed_key",
            Box::new(move |r| r[second].key = Some("other".into())),
            vec![format!("changed-key {}", event(second))],
        ),
        (
            "changed_header",
            Box::new(move |r| {
                let header = r[second].headers.iter_mut().find(|(name, _)| name == "event_type");
                header.expect("a type").1 = "other".into();
            }),
            vec![format!("changed-headers {}", event(second))],
        ),
        (
            "header_missing",
            Box::new(move |r| r[second].headers.retain(|(name, _)| name != "event_type")),
            vec![format!("changed-headers {}", event(second))],
        ),
        (
            "wrong_partition",
            Box::new(move |r| r[second].partition = (r[second].partition + 1) % PARTITIONS),
            vec![format!("wrong-partition {}", event(second))],
        ),
        (
            "never_committed",
            Box::new(move |r| {
                let mut phantom = r[second].clone();
                let header = phantom.headers.iter_mut().find(|(name, _)| name == "event_id");
                header.expect("an id").1 = "00000000-0000-7000-8000-000000000000".into();
                r.push(phantom);
            }),
            vec!["unknown 00000000-0000-7000-8000-000000000000".into()],
        ),
    ];
    for (name, plant, expected) in plants {
        let mut records = clean.clone();
        plant(&mut records);
        let prefix = format!("{}.{name}", bed.name);
        let topic = format!("{prefix}.user");
        create_topic(&bootstrap, &topic, PARTITIONS, &[]).await.expect("a topic");
        produce(&bootstrap, &topic, &records).await;
        let (code, faults, said) = audit(&bed, &prefix, "").await;
        assert_eq!((code, &faults), (Some(1), &expected), "{name}: {said}");
    }

    // In another topic.
    let (prefix, stray) = (format!("{}.moved", bed.name), format!("{}.stray", bed.name));
    for topic in [&format!("{prefix}.user"), &stray] {
        create_topic(&bootstrap, topic, PARTITIONS, &[]).await.expect("a topic");
    }
    let mut records = clean.clone();
    let moved = records.remove(second);
    produce(&bootstrap, &format!("{prefix}.user"), &records).await;
    produce(&bootstrap, &stray, &[moved]).await;
    let topics = format!("--topics {stray}");
    let (_, faults, said) = audit(&bed, &prefix, &topics).await;
    let expected = [format!("wrong-topic {}", event(second)), format!("lost {}", event(second))];
    assert_eq!(faults, expected, "{said}");
    // What is left out is neither printed nor counted.
    let ignoring = format!("{topics} --ignore wrong-topic,lost");
    let (code, faults, said) = audit(&bed, &prefix, &ignoring).await;
    assert_eq!((code, faults.len()), (Some(0), 0), "{said}");
}

#[actix::test]
async fn a_trace_tells_what_became_of_an_event() {
    let bed = Bed::shared("trace").await;
    let mut client = bed.client().await;
    client.batch_execute(&schema::outbox_table("outbox_events").unwrap()).await.unwrap();
    let topic = format!("{}.user", bed.name);
    let small = [("max.message.bytes", "2000")];
    create_topic(&bed.kafka.admin_bootstrap(), &topic, PARTITIONS, &small).await.expect("a topic");
    let [delivered, parked, waiting] = ["u1", "u2", "u3"].map(|id| {
        // Too large for the topic, also compressed.
        let payload = if id == "u2" { noise(200) } else { "{}".into() };
        Fact::new("user", id, "user.changed").payload(payload)
    });
    let [of_delivered, of_parked, of_waiting] =
        [&delivered, &parked, &waiting].map(|fact| fact.event_id().to_string());
    let emitter = Emitter::archive(&bed.name, "outbox_events");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let transaction = client.transaction().await.unwrap();
    emitter.emit_all(&transaction, &[delivered, parked]).await.unwrap();
    transaction.commit().await.unwrap();
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let transaction = client.transaction().await.unwrap();
    emitter.emit(&transaction, waiting).await.unwrap();
    transaction.commit().await.unwrap();

    let (code, out, err) = type_in(&bed, &["trace", &of_delivered]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("row        of public.outbox_events, created 2"), "{out}");
    assert!(out.contains(&format!("route      to {topic}\n")), "{out}");
    assert!(out.contains(&format!("delivered  {topic} ")) && out.contains(":0 at 2"), "{out}");

    let (code, out, _) = type_in(&bed, &["trace", &of_parked]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("parked     0:0 at 2") && !out.contains("delivered"), "{out}");

    let (code, out, _) = type_in(&bed, &["trace", &of_waiting]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("delivered  not yet: factlib status says how far the relay is"), "{out}");

    let nobody = "00000000-0000-7000-8000-000000000000";
    let (code, out, _) = type_in(&bed, &["trace", nobody]).await;
    assert_eq!(code, Some(1), "{out}");
    let none = "row        none in public.outbox_events: never committed, removed since, or only emitted as a message";
    assert!(out.contains(none), "{out}");

    // Without the table, as for an event that is only a message.
    let line = ["trace", &of_delivered, "--no-table", "--topics", &topic, "--json"];
    let (code, out, _) = type_in(&bed, &line).await;
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["records"][0]["topic"]), (Some(0), &topic.into()), "{found}");

    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("factlib.toml");
    let route = "[[route]]\nmatch.aggregate_type = \"user\"\ndrop = true\n";
    std::fs::write(&config, route).expect("written");
    let line = ["trace", &of_waiting, "--config", config.to_str().unwrap()];
    let (code, out, _) = type_in(&bed, &line).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("route      dropped by a route: factlib route --explain"), "{out}");
}
