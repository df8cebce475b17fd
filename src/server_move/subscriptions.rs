//! Finds tables that logical replication fills on the new server: their rows are events of the old
//! server, which a relay of the new one would send again.

use super::end::End;
use crate::Result;

/// A table that a subscription fills.
pub(super) struct Replicated {
    pub table: String,
    pub subscription: String,
}

/// $1: the oids of tables. The view `pg_stat_subscription` names subscriptions to everybody, which
/// `pg_subscription` does not before 14.
const QUERY: &str = "\
SELECT DISTINCT r.srrelid::regclass::text, s.subname::text
FROM pg_subscription_rel r JOIN pg_stat_subscription s ON s.subid = r.srsubid
WHERE r.srrelid = ANY($1::oid[])
ORDER BY 1, 2";

/// Finds the outbox tables that a subscription fills. Logical messages are never replicated.
pub(super) async fn replicated_outboxes(end: &End) -> Result<Vec<Replicated>> {
    replicated(end, end.outbox_oids().await?).await
}

/// Finds factlib's own tables that a subscription fills.
pub(super) async fn replicated_own_tables(end: &End) -> Result<Vec<Replicated>> {
    let names = ["checkpoints", "dead_letters", "held_events", "moves"];
    replicated(end, end.oids(&[super::prepare::SCHEMA; 4], &names).await?).await
}

async fn replicated(end: &End, tables: Vec<u32>) -> Result<Vec<Replicated>> {
    let rows = end.query(QUERY, &[&tables]).await?;
    let read =
        |row| Ok(Replicated { table: end.column(row, 0)?, subscription: end.column(row, 1)? });
    rows.iter().map(read).collect()
}
