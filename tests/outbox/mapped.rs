//! Tables as they are found: other columns, several tables, rows that are no events.

use factlib::{
    config::{OutboxPreset, OutboxTable},
    proto::OutboxEvent,
    testing::ConsumedRecord,
};
use prost::Message;

use crate::support::{
    Bed,
    rows::{EVENTS, event, header, insert, records, with_table},
};

fn decoded(record: &ConsumedRecord) -> OutboxEvent {
    OutboxEvent::decode(record.value.as_deref().expect("a value")).expect("an OutboxEvent")
}

#[actix::test]
async fn columns_of_other_names_and_types_are_mapped_and_others_added() {
    let mut bed = Bed::shared("mapped").await;
    let client = bed.client().await;
    let tables = "\
        CREATE SCHEMA \"App\";
        CREATE TABLE \"App\".facts (seq bigint PRIMARY KEY, kind text, what varchar(20), who int,
            body jsonb, ms bigint, tenant text, secret bytea, urgent boolean)";
    client.batch_execute(tables).await.expect("the table");
    client.batch_execute(EVENTS).await.expect("another table");
    let mut table = OutboxTable::new("App.facts", OutboxPreset::Factlib);
    table.columns.id = Some("seq".into());
    table.columns.aggregate_type = Some("kind".into());
    table.columns.aggregate_id = Some("who".into());
    table.columns.event_type = Some("what".into());
    table.columns.payload = Some("body".into());
    table.columns.created_at = Some("ms".into());
    table.headers = vec!["tenant".into(), "urgent:is-urgent".into(), "secret".into()];
    table.envelope = vec!["tenant:customer".into()];
    bed.config.outbox = vec![table, OutboxTable::new("outbox_events", OutboxPreset::Factlib)];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let rows = "INSERT INTO \"App\".facts VALUES
        (1, 'order', 'placed', 7, '{\"b\": 1, \"a\":2}', 1700000000123, 't1', '\\x00ff', true),
        (2, 'order', 'paid', 7, NULL, NULL, NULL, NULL, NULL)";
    client.batch_execute(rows).await.expect("rows");
    insert(&client, &event("u")).await;

    let orders = records(&bed, &format!("{}.order", bed.name), 2).await;
    let first = decoded(&orders[0]);
    assert_eq!(&first.payload[..], br#"{"a": 2, "b": 1}"#, "jsonb's own text");
    assert_eq!((first.id.as_str(), first.aggregate_id.as_str()), ("1", "7"));
    assert_eq!(
        (first.event_type.as_str(), first.created_at),
        ("placed", 1_700_000_000_123_000_000)
    );
    assert_eq!(first.metadata.get("customer").map(String::as_str), Some("t1"));
    assert_eq!(orders[0].key.as_deref(), Some(&b"7"[..]));
    assert_eq!((header(&orders[0], "event_id"), header(&orders[0], "tenant")), ("1", "t1"));
    assert_eq!(header(&orders[0], "is-urgent"), "true");
    assert_eq!(orders[0].header("secret").map(|value| &value[..]), Some(&[0, 0xff][..]));
    let second = decoded(&orders[1]);
    assert!(second.payload.is_empty() && second.metadata.is_empty());
    assert!(second.created_at > 1_700_000_000_000_000_000, "the time of the commit");
    assert_eq!(header(&orders[1], "tenant"), "");
    assert_eq!(records(&bed, &format!("{}.user", bed.name), 1).await.len(), 1);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn rows_that_are_no_events_go_to_the_dead_letters_and_the_others_flow() {
    let bed = with_table("refused_rows").await;
    let client = bed.client().await;
    let loosened = "ALTER TABLE outbox_events ALTER COLUMN aggregate_type DROP NOT NULL";
    client.batch_execute(loosened).await.expect("altered");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let rows = "INSERT INTO outbox_events
            (id, aggregate_type, aggregate_id, event_type, payload, created_at, metadata) VALUES
        (gen_random_uuid(), NULL, 'nobody', 'e', 'x', now(), '{}'),
        (gen_random_uuid(), '', 'empty', 'e', 'x', now(), '{}'),
        (gen_random_uuid(), 'user', 'list', 'e', 'x', now(), '[]')";
    client.batch_execute(rows).await.expect("rows");
    insert(&client, &event("u")).await;
    records(&bed, &format!("{}.user", bed.name), 1).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 3).await;
    for (who, why) in [
        ("nobody", "its aggregate type is null"),
        ("empty", "its aggregate type is empty"),
        ("list", "its metadata is not a JSON object"),
    ] {
        let row = |letter: &ConsumedRecord| {
            serde_json::from_slice::<serde_json::Value>(letter.value.as_deref().expect("a value"))
                .expect("JSON")
        };
        let letter = letters.iter().find(|letter| row(letter)["aggregate_id"] == who);
        let letter = letter.expect("its dead letter");
        let error = header(letter, "dead_letter_error");
        assert!(error.contains(why) && error.contains("public.outbox_events"), "{error}");
        assert_eq!(row(letter)["payload"], "\\x78", "the row as it is");
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_table_is_altered_while_it_is_read() {
    let bed = with_table("altered").await;
    let mut client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let topic = format!("{}.user", bed.name);
    insert(&client, &event("before")).await;
    records(&bed, &topic, 1).await;
    // Columns move within the row, also in the middle of a transaction.
    let transaction = client.transaction().await.expect("a transaction");
    insert(&transaction, &event("same transaction")).await;
    let altered =
        "ALTER TABLE outbox_events ADD COLUMN tenant text DEFAULT 't', DROP COLUMN processed";
    transaction.batch_execute(altered).await.expect("altered");
    insert(&transaction, &event("after")).await;
    transaction.commit().await.expect("a commit");
    let moved = "ALTER TABLE outbox_events DROP COLUMN event_type;
        ALTER TABLE outbox_events ADD COLUMN event_type text NOT NULL DEFAULT ''";
    client.batch_execute(moved).await.expect("altered");
    insert(&client, &event("moved")).await;
    let all = records(&bed, &topic, 4).await;
    for record in &all {
        let expected =
            event(std::str::from_utf8(record.key.as_deref().expect("a key")).expect("text"));
        assert_eq!(OutboxEvent { id: decoded(record).id, ..expected }, decoded(record));
    }
    // Without one of its columns, its rows are parked until somebody sees to it.
    client
        .batch_execute("ALTER TABLE outbox_events RENAME payload TO body")
        .await
        .expect("renamed");
    let row = "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, body)
        VALUES (gen_random_uuid(), 'user', 'late', 'e', 'x')";
    client.batch_execute(row).await.expect("a row");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    assert!(header(&letters[0], "dead_letter_error").contains("has no column payload"));
    pipeline.shutdown().await.expect("a clean stop");
}
