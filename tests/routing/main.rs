//! Routes and formats on real servers: events go where they should, as what they should,
//! each once and in order, and what is refused comes back by the same route.

#[path = "../support/mod.rs"]
mod support;

mod dead_letters;
mod formats;
mod history;
mod policies;
mod replay;
mod tables;

use factlib::{
    config::{Route, RouteMatch},
    emit::{Emitter, Fact},
    proto::OutboxEvent,
    testing::{ConsumedRecord, read_topic, wait_for_count},
};
use support::{Bed, bed::LIMIT};

/// Takes an aggregate type; to these topics.
fn route(aggregate_type: &str, topics: &[&str]) -> Route {
    let aggregate_type = Some(aggregate_type.to_owned());
    Route {
        matches: RouteMatch { aggregate_type, ..Default::default() },
        topic: topics.iter().map(|topic| topic.to_string()).collect(),
        ..Default::default()
    }
}

/// Emits in one transaction, and gives what was emitted.
async fn emit(bed: &Bed<'_>, facts: &[Fact]) -> Vec<OutboxEvent> {
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    Emitter::new(bed.name.clone()).emit_all(&transaction, facts).await.expect("emitted");
    transaction.commit().await.expect("a commit");
    facts.iter().map(|fact| fact.to_event().expect("valid")).collect()
}

/// So many records of a topic, once there are that many, and no more.
async fn records(bed: &Bed<'_>, topic: &str, count: usize) -> Vec<ConsumedRecord> {
    let bootstrap = bed.kafka.admin_bootstrap();
    wait_for_count(&bootstrap, &[topic], count, LIMIT).await.expect("records");
    let records = read_topic(&bootstrap, topic).await.expect("a topic");
    assert_eq!(records.len(), count, "{records:?}");
    records
}

fn header<'a>(record: &'a ConsumedRecord, name: &str) -> &'a str {
    let value = record.header(name).unwrap_or_else(|| panic!("no header {name}: {record:?}"));
    std::str::from_utf8(value).expect("text")
}
