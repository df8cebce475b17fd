//! The publication changes while the relay runs: what is not sent any more is said, the other
//! tables go on, and what was not sent can be replayed.

use std::time::Duration;

use factlib::{
    ErrorKind, PipelineHandle, PipelineStatus,
    config::{OutboxPreset, OutboxTable, Source},
    testing::{CollectedLogs, ConsumedRecord, PostgresServer, shared_kafka},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Bed, Workload,
    bed::LIMIT,
    rows::{EVENTS, records},
    status::until,
};

const PROBLEM: &str = "an outbox table is not relayed as it is configured";
const NOT_PUBLISHED: &str = "rows of an outbox table were not published, or not all of them";

/// Two tables of two tenants, which the relay of the bed reads.
async fn tenants(bed: &mut Bed<'_>) {
    let tables = format!(
        "CREATE SCHEMA a; CREATE SCHEMA b; SET search_path = a; {EVENTS}; SET search_path = b; {EVENTS}"
    );
    bed.client().await.batch_execute(&tables).await.expect("the tables");
    let table = |name| OutboxTable::new(name, OutboxPreset::Factlib);
    bed.config.outbox = vec![table("a.outbox_events"), table("b.outbox_events")];
    bed.config.postgres.publication_check_interval = Duration::from_millis(200);
}

/// A row of now.
async fn insert(bed: &Bed<'_>, table: &str, aggregate_id: &str) {
    let row = format!(
        "INSERT INTO {table} (id, aggregate_type, aggregate_id, event_type, payload)
         VALUES (gen_random_uuid(), 'user', '{aggregate_id}', 'e', 'x')"
    );
    bed.client().await.batch_execute(&row).await.expect("a row");
}

async fn execute(bed: &Bed<'_>, statements: &str) {
    let done = bed.client().await.batch_execute(statements).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

fn has_error(status: &PipelineStatus, table: &str) -> bool {
    let is_about = |about: &Option<String>| about.as_deref() == Some(table);
    status.publication_problems.iter().any(|problem| problem.is_error && is_about(&problem.table))
}

fn keys(records: &[ConsumedRecord]) -> Vec<&str> {
    let keys = records.iter().map(|record| record.key.as_deref().expect("a key"));
    let keys = keys.map(|key| std::str::from_utf8(key).expect("text"));
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    keys
}

async fn healthz(bed: &Bed<'_>) -> String {
    let port = bed.config.http.health_port.expect("a port");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

/// Ends the connection that reads; the relay makes another.
async fn break_connection(bed: &Bed<'_>, pipeline: &PipelineHandle) {
    let generation = pipeline.status().generation;
    let end = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        bed.name
    );
    execute(bed, &end).await;
    until(pipeline, "another generation", |status| {
        status.generation > generation && status.state == factlib::PipelineState::Running
    })
    .await;
}

#[actix::test]
async fn rows_that_are_not_published_are_said_and_named_and_the_other_table_flows() {
    let mut bed = Bed::shared("unpublished").await;
    tenants(&mut bed).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    bed.config.http.health_port = Some(free.local_addr().expect("bound").port());
    drop(free);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let (name, topic) = (bed.name.clone(), format!("{}.user", bed.name));
    insert(&bed, "a.outbox_events", "before").await;
    records(&bed, &topic, 1).await;
    let version =
        bed.client().await.query_one("SHOW server_version_num", &[]).await.expect("a row");
    let version: u32 = version.get::<_, &str>(0).parse().expect("a number");

    let add = format!("ALTER PUBLICATION \"{name}\" ADD TABLE a.outbox_events");
    let both = format!("ALTER PUBLICATION \"{name}\" SET TABLE b.outbox_events, a.outbox_events");
    let mut changes = vec![
        (
            "taken out",
            format!("ALTER PUBLICATION \"{name}\" DROP TABLE a.outbox_events"),
            "a.outbox_events",
            add.clone(),
        ),
        (
            "made again",
            "CREATE TABLE a.new (LIKE a.outbox_events INCLUDING ALL); DROP TABLE a.outbox_events;
             ALTER TABLE a.new RENAME TO outbox_events"
                .into(),
            "a.outbox_events",
            add.clone(),
        ),
        (
            "replaced",
            "ALTER TABLE a.outbox_events RENAME TO old;
             CREATE TABLE a.outbox_events (LIKE a.old INCLUDING ALL)"
                .into(),
            "a.old",
            format!("{add}; DROP TABLE a.old"),
        ),
        (
            "moved",
            "CREATE SCHEMA c; ALTER TABLE a.outbox_events SET SCHEMA c".into(),
            "c.outbox_events",
            "ALTER TABLE c.outbox_events SET SCHEMA a".into(),
        ),
        (
            "without INSERT",
            format!("ALTER PUBLICATION \"{name}\" SET (publish = 'update')"),
            "a.outbox_events",
            format!("ALTER PUBLICATION \"{name}\" SET (publish = 'insert, update')"),
        ),
    ];
    if version >= 15_00_00 {
        let filtered = format!("{both} WHERE (event_type = 'z')");
        changes.push(("filtered", filtered, "a.outbox_events", both));
    }
    let (mut sent, mut ranges) = (1, 0);
    for (what, change, written, mend) in &changes {
        execute(&bed, change).await;
        until(&pipeline, what, |status| has_error(status, "a.outbox_events")).await;
        insert(&bed, written, what).await;
        if *what != "without INSERT" {
            insert(&bed, "b.outbox_events", &format!("beside {what}")).await;
            sent += 1;
        }
        records(&bed, &topic, sent).await;
        let answer = healthz(&bed).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("outbox_events"), "{answer}");

        execute(&bed, mend).await;
        ranges += if *what == "without INSERT" { 2 } else { 1 };
        until(&pipeline, what, |status| status.unpublished.len() == ranges).await;
        let answer = healthz(&bed).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
        insert(&bed, "a.outbox_events", &format!("after {what}")).await;
        sent += 1;
        let all = records(&bed, &topic, sent).await;
        assert!(!keys(&all).contains(what), "{what}");
    }
    let said = |message| logs.lines().into_iter().filter(move |line| line.message == message);
    assert_eq!(said(NOT_PUBLISHED).count(), ranges);
    assert!(said(PROBLEM).all(|line| line.value("since_lsn").is_some()));
    let unread = said("the publication may need attention");
    let unread: Vec<_> = unread.filter_map(|line| line.value("found").map(str::to_owned)).collect();
    assert!(unread.iter().any(|found| found.contains("publishes a.old")), "{unread:?}");

    // What is offered sends what was missed, and no more than was written within these seconds.
    let rows = pipeline.status().unpublished.swap_remove(ranges - 1);
    assert!(rows.from_lsn.is_some_and(|from| from < rows.to_lsn), "{rows:?}");
    pipeline.shutdown().await.expect("a clean stop");
    let mut words = rows.replay.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let url = bed.postgres.url_for(&bed.database);
    words.extend(["--postgres-url".into(), url, "--brokers".into(), bed.kafka.bootstrap()]);
    words.extend(["--prefix".into(), bed.name.clone()]);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.env_clear().current_dir(bed.postgres.socket_dir()).args(words);
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut replayed = Vec::new();
    bed.each_record(|record| {
        if record.header("factlib_replay").is_some() {
            replayed
                .push(String::from_utf8_lossy(record.key.as_deref().expect("a key")).into_owned());
        }
    })
    .await;
    let (missed, _, _, _) = changes.last().expect("changes");
    assert!(replayed.iter().any(|key| key == missed), "{replayed:?}");
    assert!(replayed.len() < sent, "not all of the table: {replayed:?}");
}

#[actix::test]
async fn what_leaves_and_comes_back_between_two_looks_is_named_at_the_next_one() {
    let mut bed = Bed::shared("between").await;
    tenants(&mut bed).await;
    bed.config.postgres.publication_check_interval = Duration::from_secs(3_600);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    // The first look is the one at the beginning.
    insert(&bed, "a.outbox_events", "before").await;
    records(&bed, &format!("{}.user", bed.name), 1).await;
    break_connection(&bed, &pipeline).await;
    let name = &bed.name;
    for change in ["DROP", "ADD"] {
        execute(&bed, &format!("ALTER PUBLICATION \"{name}\" {change} TABLE b.outbox_events"))
            .await;
    }
    break_connection(&bed, &pipeline).await;
    let line = logs.await_line(|line| line.message == NOT_PUBLISHED, LIMIT).await.expect("a line");
    assert_eq!(line.value("table"), Some("b.outbox_events"));
    assert!(line.value("remedy").is_some_and(|text| text.contains("--table b.outbox_events ")));
    assert_eq!(pipeline.status().unpublished.len(), 1);
    // The stream itself says that a table has changed.
    execute(&bed, "ALTER TABLE a.outbox_events RENAME payload TO body").await;
    let row = "INSERT INTO a.outbox_events (id, aggregate_type, aggregate_id, event_type, body)
               VALUES (gen_random_uuid(), 'user', 'late', 'e', 'x')";
    execute(&bed, row).await;
    until(&pipeline, "a look", |status| has_error(status, "a.outbox_events")).await;
    // A key that is gone makes the application's UPDATE fail, because of what is published.
    execute(&bed, "ALTER TABLE b.outbox_events DROP CONSTRAINT outbox_events_pkey").await;
    break_connection(&bed, &pipeline).await;
    until(&pipeline, "no key", |status| has_error(status, "b.outbox_events")).await;
    let problems = pipeline.status().publication_problems;
    let said = |text: &str| problems.iter().any(|problem| problem.problem.contains(text));
    assert!(said("outbox table b.outbox_events has no primary key"), "{problems:?}");
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_tenant_that_is_gone_does_not_stop_the_others() {
    let mut bed = Bed::shared("tenants").await;
    tenants(&mut bed).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let topic = format!("{}.user", bed.name);
    insert(&bed, "a.outbox_events", "a").await;
    records(&bed, &topic, 1).await;
    execute(&bed, "DROP SCHEMA a CASCADE").await;
    break_connection(&bed, &pipeline).await;
    insert(&bed, "b.outbox_events", "after the reconnect").await;
    records(&bed, &topic, 2).await;
    until(&pipeline, "it is said", |status| has_error(status, "a.outbox_events")).await;
    assert!(!has_error(&pipeline.status(), "b.outbox_events"));
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    // Also for a process that starts where another one had read.
    let pipeline = bed.pipeline().start().await.expect("it starts again");
    insert(&bed, "b.outbox_events", "after the restart").await;
    records(&bed, &topic, 3).await;
    until(&pipeline, "it is said", |status| has_error(status, "a.outbox_events")).await;
    pipeline.shutdown().await.expect("a clean stop");

    // Not where no table is left.
    execute(&bed, "DROP SCHEMA b CASCADE").await;
    let error = bed.pipeline().start().await.expect_err("it does not start");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused);
    assert!(error.to_string().contains("outbox table a.outbox_events does not exist"), "{error}");
}

#[actix::test]
async fn a_publication_that_is_dropped_before_postgresql_18_ends_the_relay_with_its_name() {
    let bed = Bed::shared("dropped").await;
    let version =
        bed.client().await.query_one("SHOW server_version_num", &[]).await.expect("a row");
    if version.get::<_, &str>(0).parse::<u32>().expect("a number") >= 18_00_00 {
        return;
    }
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 20).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    execute(&bed, &format!("DROP PUBLICATION \"{}\"", bed.name)).await;
    execute(&bed, "CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await;
    let ended = timeout(LIMIT, pipeline.wait()).await.expect("in time").expect_err("it ends");
    assert_eq!(ended.kind(), ErrorKind::PostgresRefused);
    let text = ended.to_string();
    assert!(text.contains(&bed.name) && text.contains("older than what the slot reads"), "{text}");
}

#[actix::test]
async fn a_publication_that_is_dropped_and_made_again_on_postgresql_18_is_said() {
    let server = PostgresServer::builder().version(18).start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&server, kafka, "dropped").await;
    tenants(&mut bed).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let (name, topic) = (bed.name.clone(), format!("{}.user", bed.name));
    insert(&bed, "a.outbox_events", "before").await;
    records(&bed, &topic, 1).await;
    execute(&bed, &format!("DROP PUBLICATION \"{name}\"")).await;
    let is_said = |status: &PipelineStatus| {
        let mut problems = status.publication_problems.iter();
        problems.any(|problem| problem.is_error && problem.problem.ends_with("does not exist"))
    };
    until(&pipeline, "it is gone", is_said).await;
    insert(&bed, "a.outbox_events", "lost").await;
    let made = "FOR TABLE a.outbox_events, b.outbox_events WITH (publish = 'insert, update')";
    execute(&bed, &format!("CREATE PUBLICATION \"{name}\" {made}")).await;
    until(&pipeline, "it is there", |status| status.unpublished.len() == 2).await;
    assert_eq!(pipeline.status().publication_problems, []);
    insert(&bed, "a.outbox_events", "after").await;
    let all = records(&bed, &topic, 2).await;
    assert_eq!(keys(&all), ["after", "before"]);
    pipeline.shutdown().await.expect("a clean stop");
    bed.drop_slot().await;

    // Messages need no table in it, and flow without it.
    execute(&bed, "DROP SCHEMA factlib CASCADE").await;
    bed.config.outbox.clear();
    bed.config.postgres.source = Some(Source::Messages);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    execute(&bed, &format!("DROP PUBLICATION \"{name}\"")).await;
    until(&pipeline, "it is gone", is_said).await;
    let notes = Workload::new(&bed.name, 20);
    let notes = Workload { aggregate_types: vec!["note".into()], ..notes };
    let history = notes.emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
}
