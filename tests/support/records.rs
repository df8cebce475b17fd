//! Facts in, records out, few enough to look at each.

use factlib::{
    emit::{Emitter, Fact},
    proto::OutboxEvent,
    testing::{ConsumedRecord, read_topic, wait_for_count},
};

use super::{Bed, bed::LIMIT};

/// Emits in one transaction, and gives what was emitted.
pub async fn emit(bed: &Bed<'_>, facts: &[Fact]) -> Vec<OutboxEvent> {
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    Emitter::new(bed.name.clone()).any_size().emit_all(&transaction, facts).await.expect("emitted");
    transaction.commit().await.expect("a commit");
    facts.iter().map(|fact| fact.to_event().expect("valid")).collect()
}

/// So many records of a topic, once there are that many, and no more.
pub async fn records(bed: &Bed<'_>, topic: &str, count: usize) -> Vec<ConsumedRecord> {
    let bootstrap = bed.kafka.admin_bootstrap();
    wait_for_count(&bootstrap, &[topic], count, LIMIT).await.expect("records");
    let records = read_topic(&bootstrap, topic).await.expect("a topic");
    assert_eq!(records.len(), count, "{records:?}");
    records
}

/// The value of a header that is there.
pub fn header<'a>(record: &'a ConsumedRecord, name: &str) -> &'a str {
    let value = record.header(name).unwrap_or_else(|| panic!("no header {name}: {record:?}"));
    std::str::from_utf8(value).expect("text")
}
