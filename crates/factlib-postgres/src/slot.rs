//! Reads, creates, advances and drops replication slots by SQL.

use tokio_postgres::{Client, types::PgLsn};

use crate::{Lsn, Result, error::postgres_error};

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// Output plugin; none for a physical slot.
    pub plugin: Option<String>,
    /// Database that it reads.
    pub database: Option<String>,
    /// Confirmed position: the server may have removed everything before it.
    pub confirmed: Lsn,
    /// The reason why it was invalidated; none while it can be read.
    pub lost: Option<String>,
    /// Process id of the server process that reads or creates it.
    pub active_pid: Option<i32>,
    /// True if standbys that synchronise slots keep a copy of it; none before PostgreSQL 17.
    pub failover: Option<bool>,
    /// True if it was copied from another server: on a standby it is kept in step with the primary's and
    /// can't be read; on a primary it dates from before the promotion.
    pub synced: bool,
    /// True for a slot that lasts as long as the session that made it; the copy on a standby is one until
    /// it is in step for the first time.
    pub temporary: bool,
}

impl Slot {
    // Through JSON, because columns came with versions: wal_status (13), conflicting (16),
    // invalidation_reason, failover, synced (17).
    const QUERY: &str = "\
        SELECT plugin::text, database::text, confirmed_flush_lsn,
               coalesce(to_jsonb(s) ->> 'invalidation_reason',
                        CASE WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'conflict with recovery' END,
                        CASE WHEN to_jsonb(s) ->> 'wal_status' = 'lost' THEN 'wal_removed' END),
               active_pid, (to_jsonb(s) ->> 'failover')::boolean,
               coalesce((to_jsonb(s) ->> 'synced')::boolean, false), temporary
        FROM pg_replication_slots s WHERE slot_name = $1";

    /// Looks the slot up.
    pub async fn read(client: &Client, name: &str) -> Result<Option<Self>> {
        let failed = |error| postgres_error(format!("cannot look up slot {name}"), error);
        let Some(row) = client.query_opt(Self::QUERY, &[&name]).await.map_err(failed)? else {
            return Ok(None);
        };
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Slot {
                plugin: row.try_get(0)?,
                database: row.try_get(1)?,
                confirmed: row.try_get::<_, Option<PgLsn>>(2)?.map_or(Lsn::ZERO, Lsn::from),
                lost: row.try_get(3)?,
                active_pid: row.try_get(4)?,
                failover: row.try_get(5)?,
                synced: row.try_get(6)?,
                temporary: row.try_get(7)?,
            })
        };
        read().map(Some).map_err(failed)
    }

    /// Creates the slot. The call returns once all transactions that write now have ended.
    ///
    /// With `failover`, which needs PostgreSQL 17, standbys that synchronise slots keep a copy of it.
    pub async fn create(
        client: &Client,
        name: &str,
        database: &str,
        failover: bool,
    ) -> Result<Self> {
        let option = if failover { ", failover => true" } else { "" };
        let statement =
            format!("SELECT lsn FROM pg_create_logical_replication_slot($1, 'pgoutput'{option})");
        let failed = |error| postgres_error(format!("cannot create slot {name}"), error);
        let row = client.query_one(&statement, &[&name]).await.map_err(failed)?;
        Ok(Slot {
            plugin: Some("pgoutput".into()),
            database: Some(database.into()),
            confirmed: row.try_get::<_, PgLsn>(0).map_err(failed)?.into(),
            failover: failover.then_some(true),
            ..Slot::default()
        })
    }

    /// True once the slot has a position. While it is being created, it has none until the
    /// transactions that were open at the beginning have ended.
    pub fn is_ready(&self) -> bool {
        self.confirmed > Lsn::ZERO || self.lost.is_some() || self.plugin.is_none()
    }

    /// Drops the slot.
    pub async fn drop(client: &Client, name: &str) -> Result<()> {
        let failed = |error| postgres_error(format!("cannot drop slot {name}"), error);
        client.execute("SELECT pg_drop_replication_slot($1)", &[&name]).await.map_err(failed)?;
        Ok(())
    }

    /// Confirms everything up to `to` and returns the position that the slot then has.
    pub async fn advance(client: &Client, name: &str, to: Lsn) -> Result<Lsn> {
        let statement = "SELECT end_lsn FROM pg_replication_slot_advance($1, $2)";
        let failed = |error| postgres_error(format!("cannot advance slot {name} to {to}"), error);
        let to = PgLsn::from(to);
        let row = client.query_one(statement, &[&name, &to]).await.map_err(failed)?;
        Ok(row.try_get::<_, PgLsn>(0).map_err(failed)?.into())
    }
}
