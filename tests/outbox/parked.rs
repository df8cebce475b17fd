//! Rows that were no events, sent again once their columns are mapped.

use std::process::Output;

use crate::support::{
    Bed,
    rows::{event, header, insert, records, with_table},
};

async fn redrive(bed: &Bed<'_>, outbox: &str, more: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command
        .args(["dead-letter", "redrive", "--all", "--slot", &bed.name, "--prefix", &bed.name])
        .args(more)
        .current_dir(bed.postgres.socket_dir())
        .env("MASTER_DATABASE_URL", bed.postgres.url_for(&bed.database))
        .env("KAFKA_BROKERS", bed.kafka.bootstrap())
        .env("FACTLIB_OUTBOX", outbox);
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs")
}

#[actix::test]
async fn a_row_whose_column_was_renamed_is_redriven_as_what_the_relay_would_have_sent() {
    let bed = with_table("renamed").await;
    let client = bed.client().await;
    client
        .batch_execute("ALTER TABLE outbox_events RENAME payload TO body")
        .await
        .expect("renamed");
    let mut before = bed.config.clone();
    before.outbox = vec![factlib::config::OutboxTable::new(
        "outbox_events",
        factlib::config::OutboxPreset::Factlib,
    )];
    before.outbox[0].columns.payload = Some("body".into());
    let pipeline = factlib::Pipeline::builder().config(before).start().await.expect("it starts");
    client
        .batch_execute("ALTER TABLE outbox_events RENAME body TO payload")
        .await
        .expect("renamed");
    // It is read by the old name, and parked.
    let original = event("u");
    insert(&client, &original).await;
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    assert!(header(&letters[0], "dead_letter_error").contains("has no column body"));
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let unmapped = r#"[{table = "outbox_events", columns = {payload = "body"}}]"#;
    let topic = format!("{}.user", bed.name);
    for more in [&[][..], &["--to-topic", &topic]] {
        let output = redrive(&bed, unmapped, more).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{error}");
        assert!(error.contains("is a row that is no event"), "{error}");
        assert!(error.contains("has no column body (it has"), "{error}");
    }
    let mapped = r#"[{table = "outbox_events"}]"#;
    let output = redrive(&bed, mapped, &[]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent = records(&bed, &topic, 1).await;
    assert_eq!(sent[0].key.as_deref(), Some(&b"u"[..]));
    let value = sent[0].value.as_deref().expect("a value");
    let decoded = <factlib::proto::OutboxEvent as prost::Message>::decode(value).expect("an event");
    assert_eq!(decoded, original, "with its bytes and its time");
    assert_eq!(header(&sent[0], "event_id"), original.id);
    assert_eq!(header(&sent[0], "LSN"), header(&letters[0], "LSN"));
}

#[actix::test]
async fn a_bytea_aggregate_is_one_key_in_record_dead_letter_and_redrive() {
    let mut bed = Bed::shared("binary_key").await;
    let client = bed.client().await;
    let table = "CREATE TABLE o (id bytea PRIMARY KEY, aggregate_type text, aggregate_id bytea,
        event_type text, payload bytea, metadata jsonb)";
    client.batch_execute(table).await.expect("the table");
    bed.config.outbox =
        vec![factlib::config::OutboxTable::new("o", factlib::config::OutboxPreset::Factlib)];
    let topic = format!("{}.user", bed.name);
    let limits = [("max.message.bytes", "20000")];
    let bootstrap = bed.kafka.admin_bootstrap();
    factlib::testing::create_topic(&bootstrap, &topic, 1, &limits).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let rows = "INSERT INTO o VALUES ('\\x01fe', 'user', '\\x00ff', 'e', 'x', '{}'),
        ('\\x02fe', 'user', '\\x00ff', 'e',
         (SELECT string_agg(sha256(n::text::bytea), '') FROM generate_series(1, 1000) n), '{}')";
    client.batch_execute(rows).await.expect("rows");
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    assert_eq!(letters[0].key.as_deref(), Some(&b"\0\xff"[..]));
    let sent = records(&bed, &topic, 1).await;
    assert_eq!(sent[0].key.as_deref(), Some(&b"\0\xff"[..]));
    let value = sent[0].value.as_deref().expect("a value");
    let event = <factlib::proto::OutboxEvent as prost::Message>::decode(value).expect("an event");
    assert_eq!((event.id.as_str(), event.aggregate_id.as_str()), ("\\x01fe", "\\x00ff"));
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    bed.set_limit(&topic, "1000000").await;
    let output = redrive(&bed, r#"[{table = "o"}]"#, &[]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent = records(&bed, &topic, 2).await;
    assert_eq!(sent[1].key.as_deref(), Some(&b"\0\xff"[..]));
}
