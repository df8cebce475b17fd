//! Old and new PostgreSQL: tables on 10 and 18, messages from 14 on.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use factlib::{
    ErrorKind,
    config::Source,
    testing::{PostgresServer, shared_kafka},
};

use crate::support::{
    Bed, Workload,
    bed::LIMIT,
    rows::{EVENTS, insert_all},
};

async fn started(major: u32) -> PostgresServer {
    let server = PostgresServer::builder().version(major);
    // As awkward as a server may be set up; the relay reads tables all the same.
    let server = server
        .setting("datestyle", "SQL, DMY")
        .setting("timezone", "Asia/Kathmandu")
        .setting("bytea_output", "escape");
    server.start().await.expect("PostgreSQL starts")
}

async fn bed_on<'a>(server: &'a PostgresServer, source: Source) -> Bed<'a> {
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(server, kafka, "versions").await;
    bed.config.postgres.source = Some(source);
    bed.client().await.batch_execute(EVENTS).await.expect("the table");
    bed
}

async fn tables_are_relayed_on(server: &PostgresServer) {
    let mut bed = bed_on(server, Source::Tables).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let workload = Workload::new(&bed.name, 300);
    let mut history = insert_all(&workload, &mut client).await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let after = Workload { seed: 2, aggregate_prefix: "b", ..workload };
    history.merge(insert_all(&after, &mut client).await);
    let pipeline = bed.pipeline().start().await.expect("it starts again");
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");

    replayed_with_the_same_bytes(&bed).await;
    bed.config.retention.after = Some(Duration::from_millis(1));
    bed.config.retention.interval = Duration::from_millis(100);
    let pipeline = bed.pipeline().start().await.expect("it starts again");
    let emptied = async {
        let query = "SELECT count(*) FROM outbox_events";
        while client.query_one(query, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, emptied).await.expect("old rows are removed");
    pipeline.shutdown().await.expect("a clean stop");
}

/// What `factlib replay` sends is what the relay had sent, however the server writes columns.
async fn replayed_with_the_same_bytes(bed: &Bed<'_>) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.env_clear().current_dir(bed.postgres.socket_dir());
    command.args(["replay", "--postgres-url", &bed.postgres.url_for(&bed.database)]);
    command.args(["--brokers", &bed.kafka.bootstrap(), "--prefix", &bed.name]);
    // Of its column, each version reads a time in its own way.
    command.args(["--since", "2020-01-01T00:00:00.123456Z", "--until", "2100-01-01T00:00:00Z"]);
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut values: BTreeMap<Bytes, Vec<_>> = BTreeMap::new();
    bed.each_record(|record| {
        let id = record.header("event_id").expect("an id").clone();
        values.entry(id).or_default().push((record.partition, record.key, record.value));
    })
    .await;
    let same = |sent: &Vec<_>| sent.len() == 2 && sent[0] == sent[1];
    assert!(values.values().all(same));
}

async fn messages_are_relayed_on(server: &PostgresServer) {
    let bed = bed_on(server, Source::Messages).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let history = Workload::new(&bed.name, 300).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn postgresql_10_has_tables_and_is_refused_for_messages() {
    let server = started(10).await;
    let bed = bed_on(&server, Source::Messages).await;
    let error = bed.pipeline().start().await.expect_err("it does not start");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused);
    let text = error.to_string();
    assert!(text.contains("PostgreSQL 10") && text.contains("postgres.source"), "{text}");
    tables_are_relayed_on(&server).await;
}

#[actix::test]
async fn postgresql_14_has_tables_and_messages() {
    let server = started(14).await;
    messages_are_relayed_on(&server).await;
    tables_are_relayed_on(&server).await;
}

#[actix::test]
async fn postgresql_18_has_tables_and_messages() {
    let server = started(18).await;
    tables_are_relayed_on(&server).await;
    messages_are_relayed_on(&server).await;
}
