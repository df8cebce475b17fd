//! Dead letters that no topic takes: the table that keeps their bytes.
//!
//! An event that Kafka refuses for its size does not fit the dead-letter topic
//! either. Its bytes go here, and a record without them to the topic.

use std::time::Duration;

use slog::Logger;
use tokio_postgres::{error::SqlState, types::PgLsn};

use crate::{
    Error, ErrorKind, Event, Result,
    kafka::record::{is_kept_in_table, kept_text},
    postgres::{ConnectInfo, Reconnecting, StatementError},
};

/// Its name.
pub(crate) const TABLE: &str = "factlib.dead_letters";

/// Creates the table; every statement is a no-op where it has been run before.
pub(crate) const CREATE_TABLE: &str = "\
CREATE SCHEMA IF NOT EXISTS factlib;
CREATE TABLE IF NOT EXISTS factlib.dead_letters (
    slot text NOT NULL,
    lsn pg_lsn NOT NULL,
    event_id text NOT NULL,
    topic text,
    error text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    redriven_at timestamptz,
    bytes bytea NOT NULL,
    PRIMARY KEY (slot, lsn, event_id)
);
";

/// An event has one position: kept again after a crash, it is the same row.
const KEEP: &str = "\
INSERT INTO factlib.dead_letters (slot, lsn, event_id, topic, error, bytes)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (slot, lsn, event_id) DO NOTHING";

/// The table `factlib.dead_letters` in the database that is read.
pub(crate) struct DeadLetterTable {
    slot: String,
    create: bool,
    connection: Reconnecting,
}

impl DeadLetterTable {
    /// Created when first needed, if `create` allows it.
    pub fn new(
        slot: String,
        create: bool,
        info: ConnectInfo,
        timeout: Duration,
        log: Logger,
    ) -> Self {
        DeadLetterTable { slot, create, connection: Reconnecting::new(info, timeout, log) }
    }

    /// Keeps those of the events that belong here.
    pub async fn keep_all(&self, events: &[Event]) -> Result<()> {
        for event in events.iter().filter(|event| is_kept_in_table(event)) {
            match self.keep(event).await {
                Err(error) if self.create && is_missing(&error) => {
                    self.create().await?;
                    self.keep(event).await
                }
                kept => kept,
            }
            .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Creates the table where it is missing.
    pub async fn create(&self) -> Result<()> {
        for statement in CREATE_TABLE.split_inclusive(";\n") {
            self.connection.run(statement, &[]).await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    async fn keep(&self, event: &Event) -> Result<(), StatementError> {
        let lsn = PgLsn::from(event.lsn().as_u64());
        let refusal = event.refusal();
        let topic = refusal.and_then(|refusal| refusal.topic.as_deref());
        let error = refusal.map(|refusal| refusal.error.to_string()).unwrap_or_default();
        let (id, bytes): (_, &[u8]) = (kept_text(event.id()), event.raw());
        self.connection.run(KEEP, &[&self.slot, &lsn, &id, &topic, &error, &bytes]).await?;
        Ok(())
    }

    fn failed(&self, error: StatementError) -> Error {
        let what =
            format!("cannot keep a dead letter in {TABLE} of {}", self.connection.describe());
        let failed = Error::new(ErrorKind::CheckpointUnavailable, what);
        let failed = if is_missing(&error) {
            failed.remedy("run `factlib setup` to create it")
        } else {
            failed
        };
        failed.caused_by(error)
    }
}

fn is_missing(error: &StatementError) -> bool {
    matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME))
}
