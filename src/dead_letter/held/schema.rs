//! The table of held events, beside the checkpoints.

/// The table with the lines of held events.
pub(crate) const HELD_TABLE: &str = "factlib.held_events";

/// SQL that creates the table; running it again changes nothing.
///
/// `commit_lsn` and `ordinal` are its [position in the stream](crate::event::StreamPosition).
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
    ordinal bigint NOT NULL,
    event_id text NOT NULL,
    topic text NOT NULL,
    error text,
    held_at timestamptz NOT NULL DEFAULT now(),
    key bytea NOT NULL,
    value bytea,
    headers bytea NOT NULL,
    PRIMARY KEY (slot, commit_lsn, ordinal, topic)
);
CREATE INDEX IF NOT EXISTS held_events_line
    ON factlib.held_events (slot, aggregate_type, aggregate_id, commit_lsn, ordinal, id);
";
