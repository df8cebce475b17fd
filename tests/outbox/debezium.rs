//! Debezium's conventions: the records are those of its outbox event router.

use bytes::Bytes;
use factlib::{
    proto::OutboxEvent,
    testing::{ConsumedRecord, create_topic},
};
use prost::Message;

use crate::support::{
    Bed,
    rows::{debezium, header, records},
};

const TABLE: &str = "\
CREATE TABLE outboxevent (
    id uuid NOT NULL PRIMARY KEY, aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb,
    tenant text, at timestamptz DEFAULT '2023-11-14 22:13:20.123456+00')";

const ID: &str = "406c07f3-26f0-4eea-a50c-109940064b8f";

fn headers(record: &ConsumedRecord) -> Vec<(&str, &[u8])> {
    record.headers.iter().map(|(key, value)| (key.as_str(), &value[..])).collect()
}

async fn with_table(name: &str) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    bed.config.outbox = vec![debezium(&bed, "public.outboxevent")];
    bed
}

#[actix::test]
async fn topic_key_value_and_headers_are_those_of_the_event_router() {
    let bed = with_table("dbz").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let rows = format!(
        "INSERT INTO outboxevent (id, aggregatetype, aggregateid, type, payload) VALUES
        ('{ID}', 'Order', '1', 'OrderCreated', '{{\"id\": 1, \"item\":\"Debezium in Action\"}}'),
        (gen_random_uuid(), 'Order', '1', 'OrderDeleted', NULL)"
    );
    bed.client().await.batch_execute(&rows).await.expect("rows");
    let orders = records(&bed, &format!("{}.outbox.event.Order", bed.name), 2).await;
    assert_eq!(orders[0].key.as_deref(), Some(&b"1"[..]));
    let value = &br#"{"id": 1, "item": "Debezium in Action"}"#[..];
    assert_eq!(orders[0].value.as_deref(), Some(value));
    assert_eq!(headers(&orders[0]), [("id", ID.as_bytes())]);
    assert_eq!(
        (orders[1].key.as_deref(), &orders[1].value),
        (Some(&b"1"[..]), &None),
        "a tombstone"
    );
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn more_columns_become_headers_and_the_records_time() {
    let mut bed = with_table("dbz_headers").await;
    let table = &mut bed.config.outbox[0];
    table.headers = vec!["type:eventType".into(), "tenant".into()];
    table.columns.created_at = Some("at".into());
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let row = format!(
        "INSERT INTO outboxevent VALUES ('{ID}', 'Order', '1', 'OrderCreated', '3', 'acme')"
    );
    bed.client().await.batch_execute(&row).await.expect("a row");
    let orders = records(&bed, &format!("{}.outbox.event.Order", bed.name), 1).await;
    let expected = [("id", ID.as_bytes()), ("eventType", b"OrderCreated"), ("tenant", b"acme")];
    assert_eq!(headers(&orders[0]), expected);
    assert_eq!(orders[0].timestamp_ms, Some(1_700_000_000_123));
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn bytes_are_sent_as_they_are_and_routed_by_another_column() {
    let mut bed = Bed::shared("dbz_bytes").await;
    let client = bed.client().await;
    let table = "CREATE TABLE o (id uuid PRIMARY KEY, aggregateid text, payload bytea, dest text)";
    client.batch_execute(table).await.expect("the table");
    let mut table = debezium(&bed, "o");
    table.columns.aggregate_type = Some("dest".into());
    bed.config.outbox = vec![table];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    // An OutboxEvent by its bytes: here it is a payload like any other.
    let row = format!("INSERT INTO o VALUES ('{ID}', 'k', '\\x1204757365721a0131', 'billing')");
    client.batch_execute(&row).await.expect("a row");
    let sent = records(&bed, &format!("{}.outbox.event.billing", bed.name), 1).await;
    assert_eq!(sent[0].value, Some(Bytes::from_static(b"\x12\x04user\x1a\x011")));
    assert_eq!(sent[0].key.as_deref(), Some(&b"k"[..]));
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn insert_and_delete_in_one_transaction_sends_the_event_once() {
    let bed = with_table("dbz_delete").await;
    let mut client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    for n in 0..3 {
        let transaction = client.transaction().await.expect("a transaction");
        let insert = "INSERT INTO outboxevent (id, aggregatetype, aggregateid, type, payload)
            VALUES (gen_random_uuid(), 'Order', '1', 'e', to_jsonb($1::int))";
        transaction.execute(insert, &[&n]).await.expect("a row");
        transaction.batch_execute("DELETE FROM outboxevent").await.expect("deleted");
        transaction.commit().await.expect("a commit");
    }
    bed.confirmed(bed.wal_end().await).await;
    let sent = records(&bed, &format!("{}.outbox.event.Order", bed.name), 3).await;
    let values: Vec<_> = sent.iter().filter_map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [b"0", b"1", b"2"]);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn of_equal_payloads_the_one_that_is_refused_is_parked() {
    let mut bed = with_table("dbz_large").await;
    bed.config.outbox[0].headers = vec!["tenant".into()];
    let topic = format!("{}.outbox.event.Order", bed.name);
    let limits = [("max.message.bytes", "20000")];
    create_topic(&bed.kafka.admin_bootstrap(), &topic, 1, &limits).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    // Alike but for a header that is too large for the topic, and that does not compress.
    let rows = "INSERT INTO outboxevent
        SELECT gen_random_uuid(), 'Order', n::text, 'e', '{}',
            CASE n WHEN 3 THEN (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i) END
        FROM generate_series(1, 5) n";
    bed.client().await.batch_execute(rows).await.expect("rows");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    let sent = records(&bed, &topic, 4).await;
    let keys: Vec<_> = sent.iter().filter_map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [b"1", b"2", b"4", b"5"]);
    assert_eq!(letters[0].key.as_deref(), Some(&b"3"[..]));
    assert_eq!(header(&letters[0], "id"), header(&letters[0], "dead_letter_event_id"));
    assert_eq!(header(&letters[0], "dead_letter_topic"), topic);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_payload_that_no_topic_takes_is_redriven_as_the_record_that_it_was() {
    let mut bed = Bed::shared("dbz_redrive").await;
    let client = bed.client().await;
    let table = "CREATE TABLE o (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, \
                 payload bytea, tenant text)";
    client.batch_execute(table).await.expect("the table");
    let mut table = debezium(&bed, "o");
    table.headers = vec!["tenant".into()];
    bed.config.outbox = vec![table];
    let (bootstrap, topic) = (bed.kafka.admin_bootstrap(), format!("{}.outbox.event.t", bed.name));
    for topic in [&topic, &bed.config.dead_letter_topic()] {
        let limits = [("max.message.bytes", "20000")];
        create_topic(&bootstrap, topic, 1, &limits).await.expect("a topic");
    }
    // It looks like an OutboxEvent, and like one with another key.
    let noise = (0..20_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    let payload = OutboxEvent {
        aggregate_type: "other".into(),
        aggregate_id: "another".into(),
        payload: noise.collect::<Vec<_>>().into(),
        ..Default::default()
    };
    let payload = payload.encode_to_vec();
    let key = "k".repeat(300);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let row = "INSERT INTO o VALUES (gen_random_uuid(), 't', $1, $2, 'acme')";
    client.execute(row, &[&key, &payload]).await.expect("a row");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    assert_eq!(header(&letters[0], "dead_letter_table"), "factlib.dead_letters");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    bed.set_limit(&topic, "1000000").await;
    let mut redrive = std::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    redrive
        .args(["dead-letter", "redrive", "--all", "--slot", &bed.name, "--prefix", &bed.name])
        .current_dir(bed.postgres.socket_dir())
        .env("MASTER_DATABASE_URL", bed.postgres.url_for(&bed.database))
        .env("KAFKA_BROKERS", bed.kafka.bootstrap());
    let status = tokio::task::spawn_blocking(move || redrive.status()).await.expect("no panic");
    assert!(status.expect("it runs").success());
    let sent = records(&bed, &topic, 1).await;
    assert_eq!(sent[0].key.as_deref(), Some(key.as_bytes()));
    assert_eq!(sent[0].value.as_deref(), Some(&payload[..]));
    let names: Vec<_> = sent[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "tenant", "redriven_from"]);
    assert_eq!(header(&sent[0], "id"), header(&letters[0], "dead_letter_event_id"));
}
