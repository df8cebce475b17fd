//! Removes rows that are old and delivered, in small batches, by the position that the slot has
//! confirmed.
//!
//! # Why the removed rows were delivered
//! A row does not say where in the WAL its transaction was committed, and `created_at` is
//! its client's clock: a transaction that is open for days commits rows that are old
//! already. So a [`Mark`] is taken first, in one statement: the snapshot's `xmin`, the
//! oldest transaction that had not ended, and `pg_current_wal_insert_lsn()`.
//!
//! 1. PostgreSQL takes a statement's snapshot before it runs its functions, and lets a
//!    transaction appear as ended only after its commit record is in the WAL. So every
//!    transaction below `xmin` that committed has its record below the mark's position.
//!    (A subtransaction's number is above its parent's; one that is prepared has not ended.)
//! 2. The slot's `confirmed_flush_lsn` is the server's own word. The relay confirms a
//!    position only when all that was committed before it is delivered or parked.
//! 3. So once the slot has confirmed the mark's position, a row that is there and whose
//!    `xmin` is below the mark's was delivered.
//!
//! Numbers of transactions are compared by `age()`, modulo 2^32. A row cannot be younger than
//! the statement that sees it, so one whose age is negative was frozen and is more than
//! 2^31 transactions old. An UPDATE makes a row younger: it is removed later, never earlier.
//!
//! A mark means something on its server alone. It lives and dies with its session, which
//! no other server can take over.

use std::time::Duration;

use factlib_postgres::{ConnectInfo, SqlSession, StatementTimeout};
use slog::Logger;
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{PgLsn, ToSql},
};

use super::{
    catalog::Catalog,
    mapping::Mapping,
    publication::{identifier, resolve_table},
    value::oid,
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    config::{OutboxTable, RetentionConfig},
    postgres::{postgres_error, sql, sql_session},
};

/// Limit of one statement: without an index on the time, each batch reads the whole table.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The server's own limit, in case our cancellation does not reach it.
const STATEMENT_TIMEOUT: &str = "SET statement_timeout = '90s'";

const MARK: &str = "\
SELECT pg_current_wal_insert_lsn(), txid_snapshot_xmin(txid_current_snapshot())";

const CONFIRMED: &str = "\
SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1";

/// Removes the old rows of some tables.
pub(crate) struct OldRowRemover {
    info: ConnectInfo,
    connect_timeout: Duration,
    slot: String,
    after: Duration,
    batch: u32,
    tables: Vec<OutboxTable>,
    /// All `[[outbox]]`.
    configured: Vec<OutboxTable>,
    log: Logger,
    session: Option<Session>,
}

struct Session {
    client: SqlSession,
    mark: Option<Mark>,
}

/// A moment: the WAL's end, and the oldest transaction that had not ended.
#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: Lsn,
    /// The oldest transaction that had not ended, cut to the 32 bits that rows have.
    xmin: u32,
}

/// Result of one sweep.
#[derive(Debug, Default)]
pub(crate) struct SweepResult {
    /// True if the mark was confirmed, so that each table was swept.
    pub ran: bool,
    pub removed: u64,
    /// Errors by table.
    pub failed: Vec<(String, Error)>,
}

impl OldRowRemover {
    /// Will remove rows of `tables` that are older than `after` and that `slot` has confirmed;
    /// `configured` is all that the relay reads.
    pub fn new(
        info: ConnectInfo,
        connect_timeout: Duration,
        slot: String,
        after: Duration,
        retention: &RetentionConfig,
        (tables, configured): (Vec<OutboxTable>, Vec<OutboxTable>),
        log: Logger,
    ) -> Self {
        let batch = retention.batch;
        let session = None;
        OldRowRemover {
            info,
            connect_timeout,
            slot,
            after,
            batch,
            tables,
            configured,
            log,
            session,
        }
    }

    /// Removes the rows below the last mark if the slot has confirmed it by now, and takes the next
    /// mark.
    ///
    /// # Errors
    /// The server can't be reached. A table that fails is in [`SweepResult::failed`] and does not
    /// stop the others.
    pub async fn sweep(&mut self) -> Result<SweepResult> {
        // Taken out, so that it is not used again after an error or when this future is dropped.
        let mut session = match self.session.take().filter(|open| !open.client.is_closed()) {
            Some(session) => session,
            None => self.open().await?,
        };
        let mut swept = SweepResult::default();
        let confirmed = session.confirmed(&self.slot).await?;
        if let Some(mark) = session.mark.filter(|mark| mark.lsn <= confirmed) {
            swept.ran = true;
            for table in &self.outbox_tables(&session.client).await? {
                let removed = self.remove_all(&session.client, table, mark, &mut swept).await;
                match removed {
                    Ok(()) => {}
                    Err(error) if session.client.is_closed() => return Err(error),
                    Err(error) => swept.failed.push((table.table.clone(), error)),
                }
            }
            session.mark = None;
        }
        // An unconfirmed mark stays: under load, a fresh one would never be confirmed in time.
        if session.mark.is_none() {
            session.mark = Some(session.take_mark().await?);
        }
        self.session = Some(session);
        Ok(swept)
    }

    async fn open(&self) -> Result<Session> {
        let client = sql_session(&self.info, self.connect_timeout, &self.log).await?;
        sql::run(&client, "cannot look for old rows", STATEMENT_TIMEOUT).await?;
        Ok(Session { client, mark: None })
    }

    /// The tables, also those that match a pattern now.
    async fn outbox_tables(&self, client: &SqlSession) -> Result<Vec<OutboxTable>> {
        if !self.tables.iter().any(OutboxTable::is_pattern) {
            return Ok(self.tables.clone());
        }
        let reading = Catalog::read(client, "", &self.tables);
        let catalog = client.within(ANSWER_TIMEOUT, reading).await;
        let what = || "cannot look up the tables whose old rows are removed".to_owned();
        let catalog = catalog.map_err(|timeout| unanswered(what(), timeout))??;
        let mut tables = catalog.outbox_tables(&self.tables);
        // One that is named on its own, with another preset, is not meant.
        tables.retain(|table| {
            let own = OutboxTable::of_name(&self.configured, &table.qualified());
            own.is_none_or(|own| own.preset == table.preset)
        });
        Ok(tables)
    }

    async fn remove_all(
        &self,
        client: &SqlSession,
        table: &OutboxTable,
        mark: Mark,
        swept: &mut SweepResult,
    ) -> Result<()> {
        let found = resolve_table(client, table).await?;
        let statement = delete(table, &found.mapping, &found.columns)?;
        let (after_s, xmin) = (self.after.as_secs_f64(), mark.xmin.to_string());
        let limit = i64::from(self.batch);
        loop {
            let parameters: &[&(dyn ToSql + Sync)] = &[&after_s, &xmin, &limit];
            let deleting = client.within(ANSWER_TIMEOUT, client.execute(&statement, parameters));
            let removed = match deleting.await {
                Ok(removed) => removed.map_err(|error| refused(table, error))?,
                Err(timeout) => {
                    let what = format!("cannot remove old rows of {}", table.table);
                    return Err(unanswered(what, timeout));
                }
            };
            swept.removed += removed;
            if removed < u64::from(self.batch) {
                return Ok(());
            }
        }
    }
}

impl Session {
    async fn confirmed(&self, slot: &str) -> Result<Lsn> {
        let what = format!("cannot read the confirmed position of slot {slot}");
        let failed = |error| postgres_error(what.clone(), error);
        let row = self.ask(&what, CONFIRMED, &[&slot]).await?;
        let lsn = row.map(|row| row.try_get::<_, Option<PgLsn>>(0)).transpose().map_err(failed)?;
        // Without a slot, nothing is confirmed.
        Ok(lsn.flatten().map_or(Lsn::ZERO, |lsn| Lsn::new(lsn.into())))
    }

    async fn take_mark(&self) -> Result<Mark> {
        let what = "cannot read the current position of the WAL";
        let row = self.ask(what, MARK, &[]).await?;
        let row = row.ok_or_else(|| Error::new(ErrorKind::Protocol, what))?;
        let read = || -> Result<(PgLsn, i64), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?))
        };
        let (lsn, xmin) = read().map_err(|error| postgres_error(what, error))?;
        // The upper half counts wraparounds; rows have only the lower half.
        Ok(Mark { lsn: Lsn::new(lsn.into()), xmin: (xmin & i64::from(u32::MAX)) as u32 })
    }

    async fn ask(
        &self,
        what: &str,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>> {
        let asking = self.client.query_opt(query, parameters);
        match self.client.within(ANSWER_TIMEOUT, asking).await {
            Ok(row) => row.map_err(|error| postgres_error(what, error)),
            Err(timeout) => Err(unanswered(what.into(), timeout)),
        }
    }
}

/// SQL that removes one batch; its parameters are the age in seconds, the mark's xmin and the size
/// of the batch.
///
/// Locked rows are left for the next time. The condition is there twice because rows of different
/// partitions can have the same ctid.
fn delete(table: &OutboxTable, mapping: &Mapping, columns: &[(String, u32)]) -> Result<String> {
    let Some(at) = mapping.created_at else {
        let what = format!("table {} has no column that says how old a row is", table.table);
        return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(
            "name one with outbox.columns.created_at, or leave it out of retention.tables",
        ));
    };
    let name = columns.get(at.index).map_or("", |(name, _)| name);
    let column = postgres_protocol::escape::escape_identifier(name);
    let since = match at.type_oid {
        oid::INT8 | oid::INT4 => format!(
            "((extract(epoch FROM now()) - $1::float8) * {})::bigint",
            table.created_at_unit.per_second()
        ),
        oid::TIMESTAMP => "(now() AT TIME ZONE 'UTC') - $1::float8 * interval '1 second'".into(),
        _ => "now() - $1::float8 * interval '1 second'".to_owned(),
    };
    let delivered = "(age(xmin) > age($2::text::xid) OR age(xmin) < 0)";
    let table = identifier(table);
    Ok(format!(
        "DELETE FROM {table} WHERE {column} < {since} AND {delivered} AND ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE {column} < {since} AND {delivered}
    LIMIT $3 FOR UPDATE SKIP LOCKED))"
    ))
}

fn unanswered(what: String, timeout: StatementTimeout) -> Error {
    let remedy = timeout.remedy();
    Error::new(ErrorKind::PostgresUnavailable, what).remedy(remedy).caused_by(timeout)
}

fn refused(table: &OutboxTable, error: tokio_postgres::Error) -> Error {
    let privilege = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
    let failed = postgres_error(format!("cannot remove old rows of {}", table.table), error);
    match privilege {
        // Locking a row takes UPDATE.
        true => failed.remedy(format!(
            "GRANT SELECT, UPDATE, DELETE ON {} to the relay's user",
            identifier(table)
        )),
        false => failed,
    }
}
