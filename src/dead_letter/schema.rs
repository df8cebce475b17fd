//! What PostgreSQL keeps of dead letters: two tables beside the checkpoints.

use tokio_postgres::error::SqlState;

use crate::postgres::{Reconnecting, StatementError};

/// Has the bytes of the letters that no topic takes.
pub(crate) const TABLE: &str = "factlib.dead_letters";

/// Creates both tables; every statement is a no-op where it has been run before.
///
/// `redriven` has the letters that were sent again. The offset alone would not do:
/// a topic that was deleted and made again counts from 0 again, so that the time at
/// which the letter was parked is part of the key.
pub(crate) const CREATE_TABLES: &str = "\
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
CREATE TABLE IF NOT EXISTS factlib.redriven (
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    parked_ms bigint NOT NULL,
    event_id text NOT NULL,
    redriven_to text NOT NULL,
    redriven_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, record_offset, parked_ms)
);
";

/// Creates what is missing.
pub(super) async fn create(connection: &Reconnecting) -> Result<(), StatementError> {
    // Asked first: IF NOT EXISTS wants the right to create also where nothing is missing.
    if exists(connection).await? {
        return Ok(());
    }
    connection.run_all(CREATE_TABLES).await
}

/// Are both tables there?
pub(super) async fn exists(connection: &Reconnecting) -> Result<bool, StatementError> {
    connection.tables_exist(&[TABLE, "factlib.redriven"]).await
}

/// True when a table is missing.
pub(super) fn is_missing(error: &StatementError) -> bool {
    matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME))
}
