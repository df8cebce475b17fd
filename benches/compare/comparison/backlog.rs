//! Events that wait in the WAL, one a transaction, written by the server itself from templates.

use futures_util::future::try_join_all;
use prost::Message;
use uuid::Uuid;

use super::{
    event::{AGGREGATES, templates},
    peer::Source,
};
use crate::support::{
    Result,
    servers::{NAME, Servers},
};

/// Sessions that write, one a core.
const SESSIONS: u64 = 2;

/// A backlog in the WAL.
pub struct Written {
    pub run: u64,
    pub facts: u64,
    /// The slot that every relay gets a copy of.
    pub slot: String,
    /// Position after the last event.
    pub end_lsn: String,
}

/// Makes a slot and, behind it, the backlog.
pub async fn write(servers: &Servers, source: Source, run: u64, facts: u64) -> Result<Written> {
    // Both sessions write as many.
    let facts = facts.div_ceil(SESSIONS) * SESSIONS;
    write_templates(servers).await?;
    let slot = format!("backlog_{run}");
    servers.create_slot(&slot).await?;
    let sessions = 0..SESSIONS;
    try_join_all(sessions.map(|session| emit(servers, source, run, session, facts / SESSIONS)))
        .await?;
    let end_lsn = servers.text("SELECT pg_current_wal_insert_lsn()::text").await?;
    Ok(Written { run, facts, slot, end_lsn })
}

async fn write_templates(servers: &Servers) -> Result<()> {
    let table = "DROP TABLE IF EXISTS templates;
        CREATE TABLE templates (number bigserial PRIMARY KEY, aggregate_type text,
            aggregate_id text, event_type text, payload text, message bytea)";
    servers.sql.batch_execute(table).await?;
    let templates = templates();
    let kinds: Vec<&str> = templates.iter().map(|one| one.aggregate_type).collect();
    let ids: Vec<&str> = templates.iter().map(|one| one.aggregate_id.as_str()).collect();
    let types: Vec<&str> = templates.iter().map(|one| one.event_type.as_str()).collect();
    let payloads: Vec<&str> = templates.iter().map(|one| one.payload.as_str()).collect();
    let messages: Vec<Vec<u8>> =
        templates.iter().map(|one| one.message(Uuid::nil()).encode_to_vec()).collect();
    let insert = "
        INSERT INTO templates (aggregate_type, aggregate_id, event_type, payload, message)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])";
    servers.sql.execute(insert, &[&kinds, &ids, &types, &payloads, &messages]).await?;
    Ok(())
}

/// Emits every second event, those of its own aggregates, a transaction each.
async fn emit(servers: &Servers, source: Source, run: u64, session: u64, facts: u64) -> Result<()> {
    let emit = match source {
        Source::Table => {
            "INSERT INTO outbox VALUES (id, kinds[at], ids[at], types[at], payloads[at])".to_owned()
        }
        // The id is the first field: its text begins behind a tag and a length.
        Source::Messages => format!(
            "PERFORM pg_logical_emit_message(true, '{NAME}',
                 overlay(messages[at] PLACING convert_to(id::text, 'UTF8') FROM 3 FOR 36))"
        ),
    };
    let client = servers.postgres.connect(NAME).await?;
    client.batch_execute("SET synchronous_commit = off").await?;
    client
        .batch_execute(&format!(
            "DO $$
             DECLARE
                 kinds text[] := (SELECT array_agg(aggregate_type ORDER BY number) FROM templates);
                 ids text[] := (SELECT array_agg(aggregate_id ORDER BY number) FROM templates);
                 types text[] := (SELECT array_agg(event_type ORDER BY number) FROM templates);
                 payloads jsonb[] := (SELECT array_agg(payload::jsonb ORDER BY number) FROM templates);
                 messages bytea[] := (SELECT array_agg(message ORDER BY number) FROM templates);
                 n bigint;
                 at int;
                 id uuid;
             BEGIN
                 FOR k IN 0..{facts} - 1 LOOP
                     n := k * {SESSIONS} + {session};
                     at := 1 + n % {AGGREGATES};
                     id := lpad(to_hex({run}), 16, '0') || lpad(to_hex(n), 16, '0');
                     {emit};
                     COMMIT;
                 END LOOP;
             END $$"
        ))
        .await?;
    Ok(())
}
