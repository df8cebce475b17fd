//! An outbox with rows to send, and the check of what was sent.

use std::collections::{BTreeMap, HashMap};

use factlib::{
    config::{Config, OutboxPreset, OutboxTable},
    testing::{ConsumedRecord, read_topic, topic_names},
};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::servers::Bed;

pub const AGGREGATES: usize = 24;
const TABLE: &str = "\
CREATE TABLE outbox (
    id uuid NOT NULL PRIMARY KEY, aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb);
CREATE TABLE other (id int PRIMARY KEY);
CREATE PUBLICATION dbz_publication FOR ALL TABLES";

/// A row that was committed.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    pub aggregate: String,
}

/// A bed with an outbox table, a publication as Debezium makes it, and a slot.
pub async fn bed(name: &str) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    prepare(&mut bed, 0).await;
    bed
}

/// Makes a slot and topics of their own for one round on the bed.
pub async fn prepare(bed: &mut Bed<'_>, round: usize) {
    let slot = format!("{}_{round}", bed.database);
    let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
    bed.client().await.query_one(create, &[&slot]).await.expect("a slot");
    bed.name.clone_from(&slot);
    configure(&mut bed.config, &slot);
}

fn configure(config: &mut Config, slot: &str) {
    config.postgres.slot = slot.into();
    config.postgres.publication = "dbz_publication".into();
    config.postgres.create = false;
    let mut table = OutboxTable::new("public.outbox", OutboxPreset::Debezium);
    table.topic_prefix = Some(slot.into());
    config.outbox = vec![table];
}

/// Inserts rows in transactions of up to so many, with unrelated rows between them.
pub async fn insert(client: &mut Client, count: usize, largest: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    while rows.len() < count {
        let transaction = client.transaction().await.expect("a transaction");
        for _ in 0..rand::random_range(1..=largest) {
            let (id, n) = (Uuid::new_v4(), rows.len());
            let aggregate = format!("a{}", rand::random_range(0..AGGREGATES));
            let kind = if n % 3 == 0 { "order" } else { "user" };
            // An aggregate is one of a type.
            let aggregate = format!("{kind}-{aggregate}");
            let insert = "INSERT INTO outbox VALUES ($1, $2, $3, 'changed', to_jsonb($4::int))";
            let values: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
                &[&id, &kind, &aggregate, &(n as i32)];
            transaction.execute(insert, values).await.expect("a row");
            rows.push(Row { id: id.to_string(), aggregate });
        }
        let other = "INSERT INTO other VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 1";
        transaction.batch_execute(other).await.expect("another row");
        transaction.commit().await.expect("a commit");
    }
    rows
}

/// All records of this bed's topics, partition by partition.
pub async fn all_records(bed: &Bed<'_>) -> Vec<ConsumedRecord> {
    let bootstrap = bed.kafka.admin_bootstrap();
    let mut all = Vec::new();
    for topic in topic_names(&bootstrap).await.expect("names") {
        if topic.starts_with(&format!("{}.", bed.name)) {
            all.extend(read_topic(&bootstrap, &topic).await.expect("a topic"));
        }
    }
    all
}

/// The id of a record's event, as every converter writes it.
pub fn id(record: &ConsumedRecord) -> String {
    let value = record.header("id").unwrap_or_else(|| panic!("no id: {record:?}"));
    String::from_utf8_lossy(value).trim_matches('"').to_owned()
}

/// How often each event was sent.
pub fn counts(records: &[ConsumedRecord]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    records.iter().for_each(|record| *counts.entry(id(record)).or_default() += 1);
    counts
}

/// Checks that each row was sent as often as it had been sent before, or else once, and that the rows
/// of each aggregate were first sent in their order.
pub fn check(rows: &[Row], before: &HashMap<String, usize>, records: &[ConsumedRecord]) {
    let sent = counts(records);
    for row in rows {
        let expected = before.get(&row.id).copied().unwrap_or(1);
        let sent = sent.get(&row.id).copied().unwrap_or(0);
        assert_eq!(sent, expected, "{row:?}: sent {sent} times in place of {expected}");
    }
    assert_eq!(sent.len(), rows.len(), "there are events that were never committed");
    let places: HashMap<&str, (usize, &str)> = rows
        .iter()
        .enumerate()
        .map(|(n, row)| (row.id.as_str(), (n, row.aggregate.as_str())))
        .collect();
    let mut last = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    for record in records {
        let id = id(record);
        if !seen.insert(id.clone()) {
            continue;
        }
        let (place, aggregate) = places[id.as_str()];
        if let Some(before) = last.insert(aggregate, place) {
            assert!(before < place, "{aggregate}: row {place} comes behind row {before}");
        }
    }
}
