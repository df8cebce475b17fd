//! Stores the bytes of dead letters that no topic takes.
//!
//! An event that is too large for its topic does not fit the dead-letter topic either, which may also
//! refuse others for reasons of its own. Their bytes go to a table, and a record without them to the
//! topic.

use std::time::Duration;

use factlib_postgres::ConnectInfo;
use slog::Logger;
use tokio_postgres::types::PgLsn;

use super::{
    record::{is_kept_in_table, kept_text},
    schema::{self, TABLE},
};
use crate::{
    Error, ErrorKind, Event, Result,
    postgres::{GRANT_ALL, Reconnecting, StatementError},
};

/// SQL that stores an event; storing it again after a crash changes nothing.
const KEEP: &str = "\
INSERT INTO factlib.dead_letters (slot, lsn, event_id, topic, error, bytes)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (slot, lsn, event_id) DO NOTHING";

/// The table `factlib.dead_letters` in the source database.
pub(crate) struct DeadLetterTable {
    slot: String,
    create: bool,
    connection: Reconnecting,
}

impl DeadLetterTable {
    /// Uses the table, which is created when first needed if `create` is set.
    pub fn new(
        slot: String,
        create: bool,
        info: ConnectInfo,
        timeout: Duration,
        log: Logger,
    ) -> Self {
        DeadLetterTable { slot, create, connection: Reconnecting::new(info, timeout, log) }
    }

    /// Stores those events whose bytes belong in the table.
    pub async fn keep_all(&self, events: &[Event]) -> Result<()> {
        self.keep_each(events.iter().filter(|event| is_kept_in_table(event))).await
    }

    /// Stores all of these events.
    pub async fn keep_each<'a>(&self, events: impl Iterator<Item = &'a Event>) -> Result<()> {
        for event in events {
            match self.keep(event).await {
                Err(error) if self.create && error.is_missing_table() => {
                    self.create().await?;
                    self.keep(event).await
                }
                kept => kept,
            }
            .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Creates the tables that are missing.
    pub async fn create(&self) -> Result<()> {
        schema::create(&self.connection).await.map_err(|error| self.failed(error))
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
        error.explained(ErrorKind::CheckpointUnavailable, what, GRANT_ALL)
    }
}
