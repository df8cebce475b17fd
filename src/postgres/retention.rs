//! Reads how much WAL the server retains for a slot, and which open transaction is the oldest.

use tokio_postgres::types::PgLsn;

use super::Reconnecting;
use crate::{Error, ErrorKind, Lsn, Result};

/// The WAL that a slot retains at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    /// End of the server's WAL.
    pub wal_end: Lsn,
    /// Position from which on WAL is retained.
    pub restart: Lsn,
    /// Confirmed position; WAL before it is retained for transactions that were open there.
    pub confirmed: Lsn,
    /// `wal_status` of `pg_replication_slots`; empty before PostgreSQL 13.
    pub wal_status: String,
    /// Bytes that may be written before the slot is invalidated; none without a limit.
    pub safe_wal_size: Option<i64>,
    /// The oldest open transaction that writes, if it was looked for.
    pub oldest: Option<OpenTransaction>,
}

/// A transaction that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenTransaction {
    /// Transaction id.
    pub xid: String,
    /// Its server process, or the name of the prepared transaction.
    pub owner: String,
    /// Start time; none if it is not visible to us.
    pub since: Option<String>,
    /// Statement that ends it.
    pub ending: String,
}

impl Retention {
    // Through JSON, because columns came with versions: wal_status, safe_wal_size (13).
    // Transactions that only read have no id and retain no WAL; those of the last seconds do not
    // matter. To read `pg_stat_activity` takes milliseconds where there are hundreds of sessions.
    const QUERY: &str = "\
SELECT wal_end, restart_lsn, confirmed_flush_lsn,
       to_jsonb(s) ->> 'wal_status', (to_jsonb(s) ->> 'safe_wal_size')::bigint, t.xid, t.owner, t.since, t.ending
FROM (
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
        AS wal_end OFFSET 0
) AS w, pg_replication_slots s LEFT JOIN LATERAL (
    SELECT xid::text, owner, since::text, ending FROM (
        SELECT backend_xid AS xid, 'pid ' || pid AS owner, xact_start AS since,
               format('SELECT pg_terminate_backend(%s)', pid) AS ending
        FROM pg_stat_activity WHERE backend_xid IS NOT NULL
        UNION ALL
        SELECT transaction, format('prepared as %L', gid), prepared,
               format('COMMIT PREPARED %L, or ROLLBACK PREPARED %1$L', gid)
        FROM pg_prepared_xacts
    ) AS open WHERE (since IS NULL OR since < now() - interval '5 seconds')
        AND pg_wal_lsn_diff(wal_end, restart_lsn) >= $2::bigint
    ORDER BY age(xid) DESC LIMIT 1
) AS t ON true
WHERE slot_name = $1";

    /// Reads the state of `slot`; none if it does not exist. The oldest transaction is looked for from
    /// this number of retained bytes on.
    pub async fn read(server: &Reconnecting, slot: &str, from: u64) -> Result<Option<Self>> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let message = || format!("cannot ask what slot {slot} keeps");
        let failed = || Error::new(ErrorKind::PostgresUnavailable, message());
        let rows = server.run(Self::QUERY, &[&slot, &from]).await;
        let rows = rows.map_err(|error| {
            let failed = match error.remedy() {
                Some(remedy) => failed().remedy(remedy),
                None => failed(),
            };
            failed.caused_by(error)
        })?;
        let Some(row) = rows.first() else { return Ok(None) };
        let lsn = |index| -> Result<Lsn, tokio_postgres::Error> {
            Ok(row
                .try_get::<_, Option<PgLsn>>(index)?
                .map_or(Lsn::ZERO, |lsn| Lsn::new(lsn.into())))
        };
        let read = || -> Result<Self, tokio_postgres::Error> {
            let oldest = match row.try_get(5)? {
                Some(xid) => Some(OpenTransaction {
                    xid,
                    owner: row.try_get(6)?,
                    since: row.try_get(7)?,
                    ending: row.try_get(8)?,
                }),
                None => None,
            };
            Ok(Retention {
                wal_end: lsn(0)?,
                restart: lsn(1)?,
                confirmed: lsn(2)?,
                wal_status: row.try_get::<_, Option<String>>(3)?.unwrap_or_default(),
                safe_wal_size: row.try_get(4)?,
                oldest,
            })
        };
        read().map(Some).map_err(|error| failed().caused_by(error))
    }

    /// Returns the bytes of WAL that are retained.
    pub fn bytes(&self) -> u64 {
        // An invalidated slot retains nothing and has no position.
        if self.restart == Lsn::ZERO { 0 } else { self.wal_end.distance_from(self.restart) }
    }
}
