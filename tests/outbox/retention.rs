//! Retention on real servers: old rows go, and none before it was delivered.
//!
//! Each of these changes to `src/outbox/old_rows.rs` fails the second test: to use a mark
//! that the slot has not confirmed, and to leave out the condition on `xmin` (an old
//! `created_at` then does it, which the row of the long transaction has from its start).

use std::time::Duration;

use factlib::{
    PipelineHandle,
    config::Source,
    emit::{Emitter, schema},
    testing::{CollectedLogs, KafkaServer, shared_postgres},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, GenericClient};

use crate::support::{
    Bed, History, Workload,
    bed::LIMIT,
    workload::{Facts, events},
};

/// In 2001: old from the start, by the client's clock.
const OLD_NS: i64 = 1_000_000_000_000_000_000;

async fn with_retention(bed: &mut Bed<'_>, interval: Duration) {
    bed.config.retention.after = Some(Duration::from_secs(3600));
    bed.config.retention.interval = interval;
    bed.config.retention.batch = 20;
    bed.config.checkpoint.idle_interval = Duration::from_millis(100);
    let table = schema::outbox_table("outbox_events").expect("a name");
    bed.client().await.batch_execute(&table).await.expect("the table");
}

async fn count(client: &impl GenericClient) -> i64 {
    let query = "SELECT count(*) FROM outbox_events";
    client.query_one(query, &[]).await.expect("a count").get(0)
}

async fn until_left(client: &Client, rows: i64) {
    let waiting = async {
        while count(client).await != rows {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, waiting).await.expect("old rows are removed");
}

/// Until it has looked again, from now on.
async fn looked(pipeline: &PipelineHandle, times: u32) {
    for _ in 0..times {
        let before = pipeline.status().retention_last_run;
        let waiting = async {
            while pipeline.status().retention_last_run == before {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, waiting).await.expect("it looks");
    }
}

/// Inserts what the workload says, in one transaction that is left open.
async fn insert(
    client: &impl GenericClient,
    facts: &mut Facts<'_>,
    n: usize,
    old: bool,
) -> Vec<factlib::proto::OutboxEvent> {
    let facts = facts.next(n);
    let facts: Vec<_> =
        facts.into_iter().map(|fact| if old { fact.created_at_ns(OLD_NS) } else { fact }).collect();
    for fact in &facts {
        let event = fact.to_event().expect("valid");
        let id: uuid::Uuid = event.id.parse().expect("a UUID");
        let insert = "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, created_at, metadata)
            VALUES ($1, $2, $3, $4, $5, 'epoch'::timestamptz + $6::bigint * interval '1 us', $7)";
        let metadata = tokio_postgres::types::Json(&event.metadata);
        let (payload, us) = (&event.payload[..], event.created_at / 1_000);
        client
            .execute(
                insert,
                &[
                    &id,
                    &event.aggregate_type,
                    &event.aggregate_id,
                    &event.event_type,
                    &payload,
                    &us,
                    &metadata,
                ],
            )
            .await
            .expect("a row");
    }
    events(&facts)
        .map(|mut event| {
            event.trace_info = None;
            event.created_at -= event.created_at % 1_000;
            event
        })
        .collect()
}

#[actix::test]
async fn the_rows_of_an_archive_go_once_their_messages_are_delivered() {
    let mut bed = Bed::shared("retention_archive").await;
    with_retention(&mut bed, Duration::from_millis(100)).await;
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let workload = Workload::new(&bed.name, 300);
    let emitter = Emitter::archive(&bed.name, "outbox_events");
    let (mut facts, mut history) = (Facts::new(&workload), History::default());
    for n in 0..30 {
        let batch: Vec<_> =
            facts.next(10).into_iter().map(|fact| fact.created_at_ns(OLD_NS + n)).collect();
        let transaction = client.transaction().await.expect("begun");
        emitter.emit_all(&transaction, &batch).await.expect("emitted");
        transaction.commit().await.expect("committed");
        events(&batch).for_each(|event| history.committed(&event));
    }
    // Too young.
    let young = facts.next(3);
    let transaction = client.transaction().await.expect("begun");
    emitter.emit_all(&transaction, &young).await.expect("emitted");
    transaction.commit().await.expect("committed");
    events(&young).for_each(|event| history.committed(&event));
    until_left(&client, 3).await;
    // It counts them after their transaction.
    let counted = async {
        while pipeline.status().retention_removed < 300 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, counted).await.expect("they are counted");
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    let noise = |line: &&factlib::testing::LogLine| line.message.contains("old rows can't");
    assert_eq!(lines.lines().iter().filter(noise).count(), 0);
}

#[actix::test]
async fn no_row_goes_before_it_is_delivered_however_old_it_is() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let mut bed = Bed::on(postgres, &kafka, "retention_outage").await;
    // Whole seconds: what is told of the last look.
    with_retention(&mut bed, Duration::from_secs(1)).await;
    bed.config.postgres.source = Some(Source::Tables);
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let (mut long, mut client) = (bed.client().await, bed.client().await);
    let mut history = History::default();
    let (first, second) = (
        Workload::new(&bed.name, 0),
        Workload { aggregate_prefix: "long", ..Workload::new(&bed.name, 0) },
    );
    let (mut facts, mut long_facts) = (Facts::new(&first), Facts::new(&second));
    let committed = async |history: &mut History, client: &mut Client, facts: &mut Facts<'_>| {
        let transaction = client.transaction().await.expect("begun");
        let events = insert(&transaction, facts, 50, true).await;
        transaction.commit().await.expect("committed");
        events.iter().for_each(|event| history.committed(event));
    };
    committed(&mut history, &mut client, &mut facts).await;
    until_left(&client, 0).await;

    // A transaction that is open for long, whose row is old before it is committed.
    let transaction = long.transaction().await.expect("begun");
    let late = insert(&transaction, &mut long_facts, 1, true).await;
    committed(&mut history, &mut client, &mut facts).await;
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    // The mark that this look takes is confirmed soon, and the broker then away.
    looked(&pipeline, 1).await;
    bed.confirmed(bed.wal_end().await).await;
    kafka.pause(1).expect("paused");
    transaction.commit().await.expect("committed");
    late.iter().for_each(|event| history.committed(event));
    let before = count(&client).await;
    committed(&mut history, &mut client, &mut facts).await;
    looked(&pipeline, 4).await;
    let left = count(&client).await;
    assert!(left >= 51, "{left} rows are left of {}: 51 are not delivered", before + 50);
    kafka.resume(1).expect("it goes on");
    bed.delivered(&history).await;
    until_left(&client, 0).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    let own = lines.lines().iter().filter(|line| line.message.contains("are changed")).count();
    assert_eq!(own, 0, "its own deletes are nothing to warn of");
}

#[actix::test]
async fn a_missing_privilege_is_one_warning_with_the_grant() {
    let mut bed = Bed::shared("retention_rights").await;
    with_retention(&mut bed, Duration::from_millis(50)).await;
    let client = bed.client().await;
    let role = &bed.name;
    let statements = format!(
        "CREATE ROLE {role}_weak LOGIN REPLICATION; GRANT CREATE ON DATABASE {} TO {role}_weak;
         GRANT SELECT ON outbox_events TO {role}_weak",
        bed.database
    );
    client.batch_execute(&statements).await.expect("roles");
    bed.config.postgres.url = postgres_url(&bed, &format!("{role}_weak")).into();
    let (log, lines) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let said =
        |line: &factlib::testing::LogLine| line.message.contains("old rows can't be removed");
    let line = lines.await_line(said, LIMIT).await.expect("a warning");
    let error = line.value("error").expect("an error");
    let grant = "GRANT SELECT, UPDATE, DELETE ON \"public\".\"outbox_events\"";
    assert!(error.contains(grant), "{error}");
    let grant = format!("{grant} TO {role}_weak");
    looked(&pipeline, 2).await;
    assert_eq!(lines.lines().iter().filter(|line| said(line)).count(), 1);
    client.batch_execute(&grant).await.expect("granted");
    let over = |line: &factlib::testing::LogLine| line.message.contains("can be removed again");
    lines.await_line(over, LIMIT).await.expect("it is over");
    pipeline.shutdown().await.expect("a clean stop");
}

fn postgres_url(bed: &Bed<'_>, user: &str) -> String {
    bed.postgres.url_for(&bed.database).replacen("postgres@", &format!("{user}@"), 1)
}
