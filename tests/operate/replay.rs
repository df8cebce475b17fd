//! `factlib replay`, the real command on the real servers, beside a running relay.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use factlib::{
    emit::{Emitter, Fact, schema},
    testing::{
        ConsumedRecord, KafkaServer, Program, read_topic, shared_postgres, topic_names,
        wait_for_count,
    },
};
use tokio_postgres::Client;

use crate::support::{
    Bed, History, Workload,
    bed::{LIMIT, PARTITIONS},
    history::Checker,
};

const COMMAND: &str = env!("CARGO_BIN_EXE_factlib");

async fn with_archive(bed: &Bed<'_>) -> Client {
    let table = schema::outbox_table("outbox_events").expect("a name");
    let client = bed.client().await;
    client.batch_execute(&table).await.expect("the table");
    client
}

/// Emits the workload's facts as messages and rows, some of them rolled back.
async fn archive_all(workload: &Workload, client: &mut Client) -> History {
    workload.emit_by(&Emitter::archive(&workload.prefix, "outbox_events"), client).await
}

fn arguments(bed: &Bed<'_>, line: &str) -> Vec<String> {
    let url = bed.postgres.url_for(&bed.database);
    let partitions = format!("kafka.topics.partitions={PARTITIONS}");
    let settings = [
        "--postgres-url",
        &url,
        "--brokers",
        &bed.kafka.bootstrap(),
        "--prefix",
        &bed.name,
        "--set",
        &partitions,
        "--log-level",
        "error",
    ]
    .map(str::to_owned);
    let line = line.split_whitespace().map(str::to_owned);
    ["replay".to_owned()].into_iter().chain(line).chain(settings).collect()
}

/// Exit code, stdout, stderr.
async fn replay(bed: &Bed<'_>, line: &str) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(COMMAND);
    command.env_clear().current_dir(bed.postgres.socket_dir()).args(arguments(bed, line));
    let running = command.stdin(Stdio::null()).output();
    let output = tokio::time::timeout(LIMIT, running).await.expect("it ends").expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn is_marked(record: &ConsumedRecord) -> bool {
    record.header("factlib_replay").is_some()
}

fn id(record: &ConsumedRecord) -> String {
    String::from_utf8_lossy(record.header("event_id").expect("an id")).into_owned()
}

#[actix::test]
async fn all_of_an_archive_is_sent_again_in_order_while_the_relay_goes_on() {
    let bed = Bed::shared("replay").await;
    let mut client = with_archive(&bed).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let workload = Workload { aggregates: 40, ..Workload::new(&bed.name, 2_500) };
    let archived = archive_all(&workload, &mut client).await;
    bed.delivered(&archived).await;

    // Facts of other aggregates, which are in no archive.
    let live = Workload { seed: 2, aggregate_prefix: "live", ..Workload::new(&bed.name, 500) };
    let (live, (code, _, said)) = tokio::join!(live.emit(&mut client), replay(&bed, ""));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("replayed 2500 of 2500, invalid 0"), "{said}");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let mut all = History::default();
    all.merge(archived.clone());
    all.merge(live);
    let prefix = bed.config.topic_prefix();
    let mut relayed = Checker::new(&all, prefix, Some(PARTITIONS));
    let mut replayed = Checker::new(&archived, prefix, Some(PARTITIONS));
    let mut places: BTreeMap<String, Vec<(String, i32, Option<bytes::Bytes>)>> = BTreeMap::new();
    bed.each_record(|record| {
        match is_marked(&record) {
            true => replayed.record(&record),
            false => relayed.record(&record),
        }
        let place = (record.topic.clone(), record.partition, record.key.clone());
        places.entry(id(&record)).or_default().push(place);
    })
    .await;
    let report = relayed.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    let report = replayed.report();
    let wrong = (report.lost, report.phantom, report.order_violations, report.duplicates);
    assert_eq!(wrong, (0, 0, 0, 0), "{report}");
    assert!(places.values().all(|places| places.iter().all(|place| *place == places[0])));
}

async fn emit(client: &mut Client, bed: &Bed<'_>, facts: &[Fact]) {
    let transaction = client.transaction().await.expect("begun");
    let emitter = Emitter::archive(&bed.name, "outbox_events");
    emitter.emit_all(&transaction, facts).await.expect("emitted");
    transaction.commit().await.expect("committed");
}

#[actix::test]
async fn what_is_selected_is_sent_and_nothing_else() {
    let bed = Bed::shared("replay_some").await;
    let mut client = with_archive(&bed).await;
    let fact = |kind: &str, id: &str, what: &str, second: i64| {
        let at = (1_700_000_000 + second) * 1_000_000_000;
        Fact::new(kind, id, what).payload(format!("{second}")).created_at_ns(at)
    };
    let facts = [
        fact("user", "u1", "created", 0),
        fact("user", "u2", "created", 1),
        fact("order", "o1", "placed", 2)
            .trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"),
        fact("user", "u1", "renamed", 3).key("k").partition(4).timestamp_ms(1_234_567),
    ];
    // The order is that of their times.
    for n in [2, 0, 3, 1] {
        emit(&mut client, &bed, &facts[n..=n]).await;
    }
    let (user, order) = (format!("{}.user", bed.name), format!("{}.order", bed.name));
    let to = format!("{}.again", bed.name);
    for (line, expected) in [
        ("", vec![0, 1, 2, 3]),
        ("--since 2023-11-14T22:13:21Z", vec![1, 2, 3]),
        ("--since 2023-11-14T22:13:21Z --until 2023-11-14T22:13:22Z", vec![1]),
        ("--since 1h", vec![]),
        ("--aggregate user", vec![0, 1, 3]),
        ("--aggregate user:u1", vec![0, 3]),
        ("--event-type created", vec![0, 1]),
        ("--limit 2", vec![0, 1]),
        (&format!("--limit 2 --after {}", facts[0].event_id()), vec![1, 2]),
    ] {
        let (code, out, said) = replay(&bed, &format!("{line} --dry-run --json")).await;
        assert_eq!(code, Some(0), "{line}: {said}");
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(json["selected"], expected.len(), "{line}: {json}");
        let of = |topic: &str| json["topics"][topic]["records"].as_u64().unwrap_or_default();
        let orders = expected.iter().filter(|n| **n == 2).count() as u64;
        assert_eq!((of(&order), of(&user)), (orders, expected.len() as u64 - orders), "{json}");
    }
    let bootstrap = bed.kafka.admin_bootstrap();
    let names = topic_names(&bootstrap).await.expect("topics");
    assert!(!names.contains(&user), "a dry run sends nothing and makes nothing");
    let (_, out, _) = replay(&bed, "--dry-run").await;
    assert!(
        out.contains(&format!("1 would go to {order}, created 2023-11-14 22:13:22+00 to")),
        "{out}"
    );

    // To one topic: all in the order of their times, where one partition takes them.
    let (code, out, said) =
        replay(&bed, &format!("--aggregate user:u1 --to-topic {to} --json")).await;
    assert_eq!(code, Some(0), "{said}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&json["replayed"], &json["last_id"]),
        (&2.into(), &facts[3].event_id().to_string().into())
    );
    wait_for_count(&bootstrap, &[&to], 2, LIMIT).await.expect("they arrive");
    let records = read_topic(&bootstrap, &to).await.expect("a topic");
    let run = json["run"].as_str().expect("a run");
    assert!(records.iter().all(|r| r.header("factlib_replay").is_some_and(|mark| mark == run)));

    let (code, _, said) = replay(&bed, "").await;
    assert_eq!(code, Some(0), "{said}");
    let records = read_topic(&bootstrap, &user).await.expect("a topic");
    let asking = records.iter().find(|record| id(record) == facts[3].event_id().to_string());
    let asking = asking.expect("it is there");
    assert_eq!((asking.partition, asking.timestamp_ms), (4, Some(1_234_567)));
    assert_eq!(asking.key.as_deref(), Some(&b"k"[..]));
    assert!(asking.header("LSN").is_none(), "a row does not know it");
    let records = read_topic(&bootstrap, &order).await.expect("a topic");
    assert_eq!(&records[0].header("span_id").expect("a trace")[..], b"00f067aa0ba902b7");

    let (code, _, said) = replay(&bed, "--table nothing").await;
    assert_eq!(code, Some(3), "{said}");
    let (code, _, said) = replay(&bed, &format!("--after {}", uuid::Uuid::now_v7())).await;
    assert_eq!(code, Some(2), "{said}");
    client
        .execute(
            "INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a b', '1', 'e', '', now())",
            &[],
        )
        .await
        .expect("a row");
    let (code, _, said) = replay(&bed, "--dry-run").await;
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("is not a valid event") && said.contains("1 rows are not valid events"),
        "{said}"
    );
}

#[actix::test]
async fn an_interrupted_replay_goes_on_where_it_was() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::builder().proxied().start().await.expect("Kafka starts");
    let bed = Bed::on(postgres, &kafka, "replay_on").await;
    let mut client = with_archive(&bed).await;
    // More than the window holds.
    let workload = Workload {
        padding: 4_000,
        aggregate_types: vec!["user".into()],
        ..Workload::new(&bed.name, 2_000)
    };
    let history = archive_all(&workload, &mut client).await;
    let topic = format!("{}.user", bed.name);
    let line = "--set pipeline.window=256KiB --set kafka.compression=none --json";
    kafka.proxy(1).expect("a proxy").rate(400_000);
    let program =
        Program::start(Path::new(COMMAND), &arguments(&bed, line), &[]).expect("it starts");
    wait_for_count(&bed.kafka.admin_bootstrap(), &[&topic], 1, LIMIT).await.expect("it sends");
    program.terminate();
    let status = program.ended(LIMIT).await.expect("it ends");
    assert_eq!(status.code(), Some(7), "{}", program.output());
    kafka.proxy(1).expect("a proxy").rate(None);
    let said = program.output();
    let (_, after) = said.split_once("--after ").unwrap_or_else(|| panic!("no way on: {said}"));
    let after = after.split(' ').next().expect("an id");
    let (code, _, said) = replay(&bed, &format!("--after {after}")).await;
    assert_eq!(code, Some(0), "{said}");
    let mut checker = Checker::new(&history, bed.config.topic_prefix(), Some(PARTITIONS));
    bed.each_record(|record| checker.record(&record)).await;
    let report = checker.report();
    assert_eq!((report.lost, report.phantom, report.order_violations), (0, 0, 0), "{report}");
}
