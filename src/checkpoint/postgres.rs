use std::time::Duration;

use async_trait::async_trait;
use slog::Logger;
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{PgLsn, ToSql},
};

use super::{Checkpoint, CheckpointStore};
use crate::{
    Error, ErrorKind, Lsn, Result,
    postgres::{ConnectInfo, Reconnecting, StatementError},
};

/// Creates the table; every statement is a no-op where it has been run before.
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

/// An instance that was replaced may come late with its last save: the position
/// moves back only together with the cluster that it belongs to.
const SAVE: &str = "\
INSERT INTO factlib.checkpoints AS old (slot, system_id, timeline, lsn) VALUES ($1, $2, $3, $4)
ON CONFLICT (slot) DO UPDATE
SET system_id = excluded.system_id, timeline = excluded.timeline, lsn = excluded.lsn, saved_at = now()
WHERE old.lsn <= excluded.lsn OR old.system_id <> excluded.system_id";

const REMOVE: &str = "DELETE FROM factlib.checkpoints WHERE slot = $1";

/// Keeps checkpoints in the table `factlib.checkpoints` of the database that is read.
pub struct PostgresStore {
    connection: Reconnecting,
}

impl PostgresStore {
    /// A store in the database of `info`; nothing may take longer than `timeout`.
    pub fn new(info: ConnectInfo, timeout: Duration, log: Logger) -> Self {
        PostgresStore { connection: Reconnecting::new(info, timeout, log) }
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

    fn failed(&self, what: &str, error: StatementError) -> Error {
        let what = format!("{what} {}", self.describe());
        let failed = Error::new(ErrorKind::CheckpointUnavailable, what);
        match error.code() {
            Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => {
                failed.remedy("run `factlib setup` to create it")
            }
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => failed.remedy(
                "GRANT USAGE ON SCHEMA factlib and SELECT, INSERT, UPDATE, DELETE on the table to this user",
            ),
            _ => failed,
        }
        .caused_by(error)
    }
}

#[async_trait]
impl CheckpointStore for PostgresStore {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        let rows = self.run("cannot read", LOAD, &[&slot]).await?;
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
        read().map(Some).map_err(|error| invalid().caused_by(error))
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let Checkpoint { slot, system_id, timeline, lsn } = checkpoint;
        let (system_id, timeline) = (system_id.to_string(), i64::from(*timeline));
        let lsn = PgLsn::from(lsn.as_u64());
        self.run("cannot write", SAVE, &[slot, &system_id, &timeline, &lsn]).await.map(|_| ())
    }

    async fn create(&self) -> Result<()> {
        // Asked first: IF NOT EXISTS wants the right to create also where nothing is missing.
        let there = self.connection.exist(&["factlib.checkpoints"]).await;
        if there.map_err(|error| self.failed("cannot look up", error))? {
            return Ok(());
        }
        let created = self.connection.run_all(CREATE_TABLE).await;
        created.map_err(|error| self.failed("cannot create", error))
    }

    async fn remove(&self, slot: &str) -> Result<()> {
        self.run("cannot write", REMOVE, &[&slot]).await.map(|_| ())
    }

    fn describe(&self) -> String {
        format!("table factlib.checkpoints of {}", self.connection.describe())
    }
}
