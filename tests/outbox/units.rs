//! The unit of a time that is a number, for the relay and for a replay.

use factlib::{
    config::{OutboxPreset, OutboxTable, TimeUnit},
    proto::OutboxEvent,
    replay::{Archive, Selection},
};
use prost::Message;
use slog::{Discard, Logger, o};

use crate::support::{Bed, rows::records};

#[actix::test]
async fn a_number_is_read_in_the_unit_that_is_set() {
    let mut bed = Bed::shared("unit").await;
    let client = bed.client().await;
    let table = "CREATE TABLE o (id text PRIMARY KEY, aggregate_type text, aggregate_id text,
        event_type text, payload text, at bigint)";
    client.batch_execute(table).await.expect("the table");
    let mut table = OutboxTable::new("o", OutboxPreset::Factlib);
    table.columns.created_at = Some("at".into());
    table.created_at_unit = TimeUnit::Us;
    bed.config.outbox = vec![table];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let rows = "INSERT INTO o VALUES ('a', 't', 'k', 'e', 'x', 1700000000123456),
        ('b', 't', 'k', 'e', 'x', 1700000001123456)";
    client.batch_execute(rows).await.expect("rows");
    let sent = records(&bed, &format!("{}.t", bed.name), 2).await;
    pipeline.shutdown().await.expect("a clean stop");
    let value = sent[0].value.as_deref().expect("a value");
    let event = OutboxEvent::decode(value).expect("an OutboxEvent");
    assert_eq!(event.created_at, 1_700_000_000_123_456_000);
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_001);
    let mut selection = Selection::default();
    selection.since = Some(at);
    let log = Logger::root(Discard, o!());
    let mut archive = Archive::open(&bed.config, "o", &selection, &log).await.expect("a table");
    assert_eq!(archive.count(), 1);
    assert_eq!(archive.next().await.expect("rows").expect("a row").id, "b");
}
