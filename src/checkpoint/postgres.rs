//! Stores checkpoints in a table of the source database.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use factlib_postgres::ConnectInfo;
use slog::Logger;
use tokio_postgres::{
    Row,
    types::{PgLsn, ToSql},
};

use super::{Checkpoint, CheckpointStore};
use crate::{
    Error, ErrorKind, Lsn, Result,
    postgres::{GRANT_ALL, Reconnecting, StatementError},
};

/// SQL that creates the table; running it again changes nothing.
pub(crate) const CREATE_TABLE: &str = "\
CREATE SCHEMA IF NOT EXISTS factlib;
CREATE TABLE IF NOT EXISTS factlib.checkpoints (
    slot text PRIMARY KEY,
    system_id text NOT NULL,
    timeline bigint NOT NULL,
    lsn pg_lsn NOT NULL,
    saved_at timestamptz NOT NULL DEFAULT now()
);
";

const LOAD: &str = "SELECT system_id, timeline, lsn FROM factlib.checkpoints WHERE slot = $1";

/// SQL that saves a position; returns the number of rows written and the position before.
///
/// A replaced instance may be late with its last save, so the position only moves back if the cluster
/// changes. If the row is gone or older than the one seen last ($5), the database was restored from a
/// backup, in which the position means something else; nothing is written then.
const SAVE: &str = "\
WITH saved AS (
    INSERT INTO factlib.checkpoints AS old (slot, system_id, timeline, lsn)
    SELECT $1::text, $2::text, $3::bigint, $4::pg_lsn
    WHERE $5::pg_lsn IS NULL OR EXISTS (SELECT FROM factlib.checkpoints WHERE slot = $1)
    ON CONFLICT (slot) DO UPDATE
    SET system_id = excluded.system_id, timeline = excluded.timeline, lsn = excluded.lsn, saved_at = now()
    WHERE old.lsn BETWEEN coalesce($5, old.lsn) AND excluded.lsn OR old.system_id <> excluded.system_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM saved), (SELECT lsn FROM factlib.checkpoints WHERE slot = $1)";

const REMOVE: &str = "DELETE FROM factlib.checkpoints WHERE slot = $1";

/// Stores checkpoints in the table `factlib.checkpoints` of the source database.
pub struct PostgresStore {
    connection: Reconnecting,
    /// A separate connection for saves: the thread that opened a connection serves it, and a save
    /// must not wait for the thread that loads.
    saving: Reconnecting,
    /// The table's position at the last read or write, by slot.
    seen: Mutex<HashMap<String, Lsn>>,
}

impl PostgresStore {
    /// Creates a store in the database of `info`; each statement is limited by `timeout`.
    pub fn new(info: ConnectInfo, timeout: Duration, log: Logger) -> Self {
        let connection = Reconnecting::new(info.clone(), timeout, log.clone()).closed_when_idle();
        PostgresStore::sharing(connection, info, timeout, log)
    }

    /// As [`new`](Self::new), with this connection for all but saves.
    pub(crate) fn sharing(
        connection: Reconnecting,
        info: ConnectInfo,
        timeout: Duration,
        log: Logger,
    ) -> Self {
        let saving = Reconnecting::new(info, timeout, log);
        PostgresStore { connection, saving, seen: Mutex::default() }
    }

    async fn run(
        &self,
        what: &str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let rows = self.connection.run(statement, parameters).await;
        rows.map_err(|error| self.failed(what, error))
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, Lsn>> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, error: StatementError) -> Error {
        let what = format!("{what} {}", self.describe());
        error.explained(ErrorKind::CheckpointUnavailable, what, GRANT_ALL)
    }
}

#[async_trait]
impl CheckpointStore for PostgresStore {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        let rows = self.run("cannot read", LOAD, &[&slot]).await?;
        self.seen().remove(slot);
        let Some(row) = rows.first() else { return Ok(None) };
        let invalid = || {
            let what =
                format!("the checkpoint of slot {slot} in factlib.checkpoints is not readable");
            Error::new(ErrorKind::CheckpointInvalid, what)
                .remedy("does another program write to this table?")
        };
        let read = || -> Result<Checkpoint, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Checkpoint {
                slot: slot.to_owned(),
                system_id: row.try_get::<_, &str>(0)?.parse()?,
                timeline: row.try_get::<_, i64>(1)?.try_into()?,
                lsn: Lsn::new(row.try_get::<_, PgLsn>(2)?.into()),
            })
        };
        let checkpoint = read().map_err(|error| invalid().caused_by(error))?;
        self.seen().insert(slot.to_owned(), checkpoint.lsn);
        Ok(Some(checkpoint))
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let Checkpoint { slot, system_id, timeline, lsn } = checkpoint;
        let (system_id, timeline) = (system_id.to_string(), i64::from(*timeline));
        let seen = self.seen().get(slot).copied();
        let (new, old) = (PgLsn::from(lsn.as_u64()), seen.map(|lsn| PgLsn::from(lsn.as_u64())));
        let parameters: &[&(dyn ToSql + Sync)] = &[slot, &system_id, &timeline, &new, &old];
        let rows = self.saving.run(SAVE, parameters).await;
        let rows = rows.map_err(|error| self.failed("cannot write", error))?;
        let answer = rows.first().and_then(|row| {
            let before: Option<PgLsn> = row.try_get(1).ok()?;
            Some((row.try_get::<_, i64>(0).ok()?, before))
        });
        match answer {
            Some((written, _)) if written > 0 => {
                self.seen().insert(slot.clone(), *lsn);
                Ok(())
            }
            // Another instance has saved a later position.
            Some((_, before)) if before.is_some() && before >= old => Ok(()),
            _ => {
                let what = format!("the position in {} is not the one saved last", self.describe());
                Err(Error::new(ErrorKind::CheckpointInvalid, what).remedy(
                    "was it removed, or the database put back to a backup? \
                     a new start goes on from what is there",
                ))
            }
        }
    }

    async fn create(&self) -> Result<()> {
        let created = self.connection.create_tables(&["factlib.checkpoints"], CREATE_TABLE).await;
        created.map_err(|error| self.failed("cannot create", error))
    }

    async fn remove(&self, slot: &str) -> Result<()> {
        self.run("cannot write", REMOVE, &[&slot]).await.map(|_| ())
    }

    fn describe(&self) -> String {
        format!("table factlib.checkpoints of {}", self.connection.describe())
    }
}
