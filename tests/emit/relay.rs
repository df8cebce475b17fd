//! What the client and the functions write, through the relay into Kafka.

use factlib::{
    config::Source,
    emit::{Emitter, Fact, schema},
    testing::{ConsumedRecord, wait_for_count},
};

use crate::support::{Bed, bed::LIMIT};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn find<'a>(records: &'a [ConsumedRecord], event_id: &str) -> &'a ConsumedRecord {
    let is = |record: &&ConsumedRecord| {
        record.header("event_id").is_some_and(|id| &id[..] == event_id.as_bytes())
    };
    let found: Vec<_> = records.iter().filter(is).collect();
    assert_eq!(found.len(), 1, "{event_id} once: {records:?}");
    found[0]
}

fn header(record: &ConsumedRecord, name: &str) -> String {
    String::from_utf8_lossy(record.header(name).expect("the header")).into_owned()
}

#[actix::test]
async fn a_record_is_as_its_fact_asks() {
    let bed = Bed::shared("emit_relay").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let table = schema::outbox_table("outbox_events").expect("a name");
    client.batch_execute(&(table + schema::FUNCTIONS)).await.expect("created");
    let emitter = Emitter::archive(&bed.name, "outbox_events");
    let tx = client.transaction().await.expect("begun");
    let plain = Fact::new("user", "u1", "created").traceparent(PARENT).tracestate("k=v");
    let asking = Fact::new("user", "u2", "created").key("k").partition(4).timestamp_ms(1_234_567);
    let nowhere = Fact::new("user", "u3", "created").partition(1_000);
    let ids = emitter.emit_all(&tx, &[plain, asking, nowhere]).await.expect("emitted");
    let emit =
        "SELECT factlib.emit('user', 'u4', 'created', $1::text::jsonb, $2::text::jsonb, $3)::text";
    let metadata = format!(r#"{{"traceparent": "{PARENT}", "factlib.key": "k4"}}"#);
    let row = tx.query_one(emit, &[&"{}", &metadata, &bed.name]).await.expect("emitted");
    let from_sql: String = row.get(0);
    tx.commit().await.expect("committed");

    let (user, letters) = (format!("{}.user", bed.name), format!("{}.dead-letter", bed.name));
    let bootstrap = bed.kafka.admin_bootstrap();
    for (topic, count) in [(&user, 3), (&letters, 1)] {
        wait_for_count(&bootstrap, &[topic], count, LIMIT).await.expect("all arrive");
    }
    pipeline.shutdown().await.expect("a clean stop");
    let mut records = Vec::new();
    bed.each_record(|record| records.push(record)).await;
    assert_eq!(records.len(), 4, "the rows of the archive are relayed by nobody");

    let record = find(&records, &ids[0].to_string());
    assert_eq!(
        (header(record, "traceparent"), header(record, "tracestate")),
        (PARENT.into(), "k=v".into())
    );
    assert_eq!(header(record, "trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(record.key.as_deref(), Some(&b"u1"[..]));
    let record = find(&records, &ids[1].to_string());
    assert_eq!((record.partition, record.timestamp_ms), (4, Some(1_234_567)));
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    let record = find(&records, &ids[2].to_string());
    assert_eq!(record.topic, letters);
    assert!(header(record, "dead_letter_error").contains("no partition 1000"), "{record:?}");
    let record = find(&records, &from_sql);
    assert_eq!(record.key.as_deref(), Some(&b"k4"[..]));
    assert_eq!(
        (header(record, "traceparent"), header(record, "span_id")),
        (PARENT.into(), "00f067aa0ba902b7".into())
    );
}

#[actix::test]
async fn rows_of_the_client_become_the_records_that_its_messages_would() {
    let mut bed = Bed::shared("emit_rows").await;
    bed.config.postgres.source = Some(Source::Tables);
    let mut client = bed.client().await;
    let table = schema::outbox_table("outbox_events").expect("a name");
    client.batch_execute(&table).await.expect("created");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let tx = client.transaction().await.expect("begun");
    let emitter = Emitter::table("outbox_events");
    let plain = Fact::new("user", "u1", "created").traceparent(PARENT).tracestate("k=v");
    let asking = Fact::new("user", "u2", "created").key("k").partition(4).timestamp_ms(1_234_567);
    let traced = Fact::new("user", "u3", "created").trace("t", "s").trace_metadata("tenant", "7");
    let nowhere = Fact::new("user", "u4", "created").partition(1_000);
    let facts = [plain, asking, traced, nowhere];
    let ids = emitter.emit_all(&tx, &facts).await.expect("emitted");
    // With the message too: the row alone is read.
    let both = Emitter::archive(&bed.name, "outbox_events");
    let archived = both.emit(&tx, Fact::new("user", "u5", "created")).await.expect("emitted");
    tx.commit().await.expect("committed");

    let (user, letters) = (format!("{}.user", bed.name), format!("{}.dead-letter", bed.name));
    let bootstrap = bed.kafka.admin_bootstrap();
    for (topic, count) in [(&user, 4), (&letters, 1)] {
        wait_for_count(&bootstrap, &[topic], count, LIMIT).await.expect("all arrive");
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let mut records = Vec::new();
    bed.each_record(|record| records.push(record)).await;
    assert_eq!(records.len(), 5, "each once");

    let record = find(&records, &ids[0].to_string());
    let trace = ["traceparent", "tracestate", "trace_id", "span_id"].map(|key| header(record, key));
    assert_eq!(trace, [PARENT, "k=v", "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"]);
    let record = find(&records, &ids[1].to_string());
    assert_eq!((record.partition, record.timestamp_ms), (4, Some(1_234_567)));
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    let record = find(&records, &ids[2].to_string());
    let trace = ["trace_id", "span_id", "tenant"].map(|key| header(record, key));
    assert_eq!(trace, ["t", "s", "7"]);
    let record = find(&records, &ids[3].to_string());
    assert!(header(record, "dead_letter_error").contains("no partition 1000"), "{record:?}");
    assert_eq!(find(&records, &archived.to_string()).key.as_deref(), Some(&b"u5"[..]));
}
