//! Rows to insert, and records to read.

use factlib::{
    config::{ChangePolicy, OutboxPreset, OutboxTable, Source},
    proto::OutboxEvent,
};
use tokio_postgres::{Client, types::Json};
use uuid::Uuid;

pub use super::records::{header, records};
use super::{
    Bed, History, Workload,
    workload::{Facts, events},
};

pub const EVENTS: &str = "\
CREATE TABLE outbox_events (
    id uuid PRIMARY KEY, aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    event_type text NOT NULL, payload bytea NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    metadata jsonb NOT NULL DEFAULT '{}', processed boolean NOT NULL DEFAULT false,
    processed_at timestamptz)";

/// Time in microseconds, as the table has it, whatever the session's settings.
const INSERT: &str = "\
INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, created_at, metadata)
VALUES ($1, $2, $3, $4, $5, 'epoch'::timestamptz + $6::bigint * interval '1 microsecond', $7)";

/// What a fact is that goes through a table: of no trace, in microseconds.
pub fn in_table(mut event: OutboxEvent) -> OutboxEvent {
    event.trace_info = None;
    event.created_at -= event.created_at % 1_000;
    event
}

pub async fn insert(client: &impl tokio_postgres::GenericClient, event: &OutboxEvent) {
    try_insert(client, event).await.expect("a row is inserted");
}

pub async fn try_insert(
    client: &impl tokio_postgres::GenericClient,
    event: &OutboxEvent,
) -> Result<(), tokio_postgres::Error> {
    let id: Uuid = event.id.parse().expect("a UUID");
    let (payload, time_us) = (&event.payload[..], event.created_at / 1_000);
    let OutboxEvent { aggregate_type, aggregate_id, event_type, .. } = event;
    let metadata = Json(&event.metadata);
    client
        .execute(
            INSERT,
            &[&id, aggregate_type, aggregate_id, event_type, &payload, &time_us, &metadata],
        )
        .await?;
    Ok(())
}

/// Inserts the workload's facts, in transactions of which some are rolled back.
pub async fn insert_all(workload: &Workload, client: &mut Client) -> History {
    let (mut facts, mut history) = (Facts::new(workload), History::default());
    let mut transactions = 0;
    while history.len() < workload.facts {
        let count = facts.transaction_size().min(workload.facts - history.len());
        transactions += 1;
        let rolled_back = transactions % workload.rollback_every == 0;
        let batch: Vec<_> = events(&facts.next(count)).map(in_table).collect();
        let transaction = client.transaction().await.expect("a transaction begins");
        for event in &batch {
            insert(&transaction, event).await;
        }
        if rolled_back {
            facts.undo();
            transaction.rollback().await.expect("a rollback");
            batch.iter().for_each(|event| history.rolled_back(event));
        } else {
            transaction.commit().await.expect("a commit");
            batch.iter().for_each(|event| history.committed(event));
        }
    }
    history
}

/// One event that is easy to tell.
pub fn event(aggregate_id: &str) -> OutboxEvent {
    OutboxEvent {
        id: Uuid::now_v7().to_string(),
        aggregate_type: "user".into(),
        aggregate_id: aggregate_id.into(),
        event_type: "user.created".into(),
        payload: b"\0\xffpayload\\".to_vec().into(),
        created_at: 1_700_000_000_123_456_000,
        metadata: [("n".to_owned(), "ü".to_owned())].into(),
        trace_info: None,
    }
}

/// A bed whose relay reads `public.outbox_events`, which is there.
pub async fn with_table(name: &str) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.config.postgres.source = Some(Source::Tables);
    bed.client().await.batch_execute(EVENTS).await.expect("the table");
    bed
}

/// Debezium's conventions, under a prefix of this bed's own.
pub fn debezium(bed: &Bed<'_>, table: &str) -> OutboxTable {
    let mut table = OutboxTable::new(table, OutboxPreset::Debezium);
    table.topic_prefix = Some(format!("{}.outbox.event", bed.name));
    table.on_update = ChangePolicy::Ignore;
    table
}
