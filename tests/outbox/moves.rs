//! Rows of a partitioned table that move to another partition.

use factlib::{
    ErrorKind,
    config::{ChangePolicy, OutboxPreset, OutboxTable},
    testing::{CollectedLogs, PostgresServer, shared_kafka},
};
use tokio_postgres::Client;

use crate::support::{
    Bed,
    bed::LIMIT,
    rows::{event, insert, records},
};

/// By a LIST, which is what a row moves over.
const TABLE: &str = "\
CREATE TABLE outbox_events (
    id uuid, aggregate_type text, aggregate_id text, event_type text, payload bytea,
    created_at timestamptz, metadata jsonb, processed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, processed)) PARTITION BY LIST (processed);
CREATE TABLE fresh PARTITION OF outbox_events FOR VALUES IN (false);
CREATE TABLE done PARTITION OF outbox_events FOR VALUES IN (true)";

fn table(on_update: ChangePolicy, on_delete: ChangePolicy) -> OutboxTable {
    let mut table = OutboxTable::new("outbox_events", OutboxPreset::Factlib);
    (table.on_update, table.on_delete) = (on_update, on_delete);
    table
}

async fn partitioned(mut bed: Bed<'_>) -> (Bed<'_>, Client) {
    let client = bed.client().await;
    client.batch_execute(TABLE).await.expect("the table");
    bed.config.outbox = vec![table(ChangePolicy::Warn, ChangePolicy::Ignore)];
    (bed, client)
}

async fn rows_that_move_are_sent_once(bed: Bed<'_>) {
    let (bed, client) = partitioned(bed).await;
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    for key in ["a", "b", "c"] {
        insert(&client, &event(key)).await;
    }
    client.batch_execute("UPDATE outbox_events SET processed = true").await.expect("moved");
    // Between the DELETE and the INSERT of a row that moves, a trigger writes others.
    let trigger = "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.aggregate_id <> 'more' THEN
                INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload)
                VALUES (gen_random_uuid(), 'user', 'more', 'e', 'x');
            END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER more BEFORE INSERT ON fresh FOR EACH ROW EXECUTE FUNCTION more()";
    client.batch_execute(trigger).await.expect("a trigger");
    client.batch_execute("UPDATE outbox_events SET processed = false").await.expect("moved");
    client.batch_execute("DROP TRIGGER more ON fresh").await.expect("dropped");
    // Deleted by one transaction and inserted by another, a row is a new one.
    client
        .batch_execute("DELETE FROM outbox_events WHERE aggregate_id = 'a'")
        .await
        .expect("deleted");
    insert(&client, &event("a")).await;
    let sent = records(&bed, &format!("{}.user", bed.name), 7).await;
    bed.confirmed(bed.wal_end().await).await;
    let mut keys: Vec<_> = sent.iter().filter_map(|record| record.key.as_deref()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [&b"a"[..], b"a", b"b", b"c", b"more", b"more", b"more"]);
    pipeline.shutdown().await.expect("a clean stop");
    let lines = logs.lines();
    let warned = lines.iter().filter(|line| line.message.contains("were changed"));
    let changes: Vec<_> = warned.filter_map(|line| line.value("change")).collect();
    assert_eq!(changes, ["updated"], "what moves is an UPDATE");
}

#[actix::test]
async fn a_row_that_moves_to_another_partition_is_sent_once() {
    rows_that_move_are_sent_once(Bed::shared("moved").await).await;
}

#[actix::test]
async fn so_it_is_on_postgresql_14() {
    let server = PostgresServer::builder().version(14).start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    rows_that_move_are_sent_once(Bed::on(&server, kafka, "moved_14").await).await;
}

#[actix::test]
async fn a_row_that_moves_is_no_delete_and_a_delete_still_is_one() {
    let (mut bed, client) = partitioned(Bed::shared("moved_stop").await).await;
    bed.config.outbox = vec![table(ChangePolicy::Ignore, ChangePolicy::Stop)];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    insert(&client, &event("a")).await;
    client.batch_execute("UPDATE outbox_events SET processed = true").await.expect("moved");
    bed.confirmed(bed.wal_end().await).await;
    client.batch_execute("DELETE FROM outbox_events").await.expect("deleted");
    let ended = tokio::time::timeout(LIMIT, pipeline.wait()).await.expect("in time");
    let error = ended.expect_err("it ends");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused);
    assert!(error.to_string().contains("were deleted at"), "{error}");
}

#[actix::test]
async fn a_partitioned_table_that_can_t_tell_its_rows_is_refused() {
    let (mut bed, client) = partitioned(Bed::shared("moved_keyless").await).await;
    bed.config.outbox = vec![table(ChangePolicy::Ignore, ChangePolicy::Ignore)];
    let refused = async |change: &str| {
        client.batch_execute(change).await.expect(change);
        let error = bed.pipeline().start().await.expect_err("it does not start");
        assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
        error.to_string()
    };
    let keyless = "ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey";
    let lacks = "the primary key of partitioned outbox table outbox_events lacks id: a row that moves \
                 to another partition with processed would be sent again";
    let error = refused(keyless).await;
    assert!(error.contains(lacks), "{error}");
    let other = "ALTER TABLE outbox_events ADD COLUMN n serial, ADD PRIMARY KEY (n, processed)";
    let error = refused(other).await;
    assert!(
        error.contains("the primary key of partitioned outbox table outbox_events lacks id"),
        "{error}"
    );
    let mended = "ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey, ADD PRIMARY KEY (id, processed);";
    let unpublished = format!(
        "{mended} CREATE PUBLICATION \"{}\" FOR TABLE outbox_events
             WITH (publish = 'insert, update', publish_via_partition_root = true)",
        bed.name
    );
    let error = refused(&unpublished).await;
    assert!(
        error.contains("DELETE of partitioned outbox table outbox_events is not published"),
        "{error}"
    );
    assert!(error.contains("SET (publish = 'insert, update, delete')"), "{error}");
    // Rows that could move only with their event need none of that.
    let by_time = "DROP TABLE outbox_events;
        CREATE TABLE outbox_events (id uuid, aggregate_type text, aggregate_id text,
            event_type text, payload bytea, created_at timestamptz, metadata jsonb)
            PARTITION BY RANGE (date_trunc('day', created_at AT TIME ZONE 'UTC'));
        CREATE TABLE day PARTITION OF outbox_events DEFAULT";
    client.batch_execute(by_time).await.expect("another table");
    let added = format!(
        "ALTER PUBLICATION \"{}\" ADD TABLE outbox_events; ALTER PUBLICATION \"{0}\" SET (publish = 'insert')",
        bed.name
    );
    client.batch_execute(&added).await.expect("published");
    let pipeline = bed.pipeline().start().await.expect("it starts");
    pipeline.shutdown().await.expect("a clean stop");
}
