//! Creates the table of held events, beside the checkpoints.

use crate::postgres::{Reconnecting, StatementError};

/// The table with the lines of held events.
pub(crate) const HELD_TABLE: &str = "factlib.held_events";

/// SQL that creates the table; running it again changes nothing.
///
/// `error` is NULL for an event that only waits. `topic` is empty for an event that could not be
/// routed.
pub(crate) const CREATE_HELD_EVENTS: &str = "\
CREATE SCHEMA IF NOT EXISTS factlib;
CREATE TABLE IF NOT EXISTS factlib.held_events (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    slot text NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    lsn pg_lsn NOT NULL,
    event_id text NOT NULL,
    topic text NOT NULL,
    error text,
    held_at timestamptz NOT NULL DEFAULT now(),
    key bytea NOT NULL,
    value bytea,
    headers bytea NOT NULL,
    PRIMARY KEY (slot, lsn, event_id, topic)
);
CREATE INDEX IF NOT EXISTS held_events_line
    ON factlib.held_events (slot, aggregate_type, aggregate_id, commit_lsn, lsn, id);
";

/// Creates the table if it is missing.
pub(super) async fn create(connection: &Reconnecting) -> Result<(), StatementError> {
    // Look first: IF NOT EXISTS requires the right to create even if nothing is missing.
    if connection.tables_exist(&[HELD_TABLE]).await? {
        return Ok(());
    }
    connection.run_all(CREATE_HELD_EVENTS).await
}
