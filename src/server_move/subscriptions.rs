//! Finds tables that logical replication fills on the new server: their rows are events of the old
//! server, which a relay of the new one would send again.

use super::end::End;
use crate::{Result, config::OutboxTable};

/// A table that a subscription fills.
pub(super) struct Replicated {
    pub table: String,
    pub subscription: String,
}

/// $1 and $2: the schemas and names of tables. Partitions count as their tables. The view
/// `pg_stat_subscription` names subscriptions to everybody, which `pg_subscription` does not before 14.
const QUERY: &str = "\
WITH RECURSIVE family AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS t(schema, name)
    JOIN pg_namespace n ON n.nspname = t.schema::name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name::name
    UNION
    SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
)
SELECT DISTINCT r.srrelid::regclass::text, s.subname::text
FROM pg_subscription_rel r JOIN pg_stat_subscription s ON s.subid = r.srsubid
WHERE r.srrelid IN (SELECT oid FROM family)
ORDER BY 1, 2";

/// Finds the outbox tables that a subscription fills. Logical messages are never replicated.
pub(super) async fn replicated_outboxes(end: &End) -> Result<Vec<Replicated>> {
    let tables = end.config.outbox_tables();
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(OutboxTable::qualified).unzip();
    replicated(end, &schemas, &names).await
}

/// Finds factlib's own tables that a subscription fills.
pub(super) async fn replicated_own_tables(end: &End) -> Result<Vec<Replicated>> {
    let names = ["checkpoints", "dead_letters", "moves"];
    replicated(end, &[super::prepare::SCHEMA; 3], &names).await
}

async fn replicated(end: &End, schemas: &[&str], names: &[&str]) -> Result<Vec<Replicated>> {
    let rows = end.query(QUERY, &[&schemas, &names]).await?;
    let read =
        |row| Ok(Replicated { table: end.column(row, 0)?, subscription: end.column(row, 1)? });
    rows.iter().map(read).collect()
}
