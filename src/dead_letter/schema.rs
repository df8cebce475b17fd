//! Creates the two tables of dead letters, beside the checkpoints.

use crate::{
    Error, ErrorKind,
    postgres::{Reconnecting, StatementError},
};

/// The table with the bytes of letters that no topic takes.
pub(crate) const TABLE: &str = "factlib.dead_letters";

const TABLES: [&str; 2] = [TABLE, "factlib.redriven"];

/// SQL that creates both tables; running it again changes nothing.
///
/// `redriven` has the letters and held events that were sent again. Its key includes the time of
/// parking, because offsets start from 0 again in a topic that was deleted and recreated.
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

/// Creates the tables that are missing.
pub(super) async fn create(connection: &Reconnecting) -> Result<(), StatementError> {
    connection.create_tables(&TABLES, CREATE_TABLES).await
}

/// Makes sure that both tables exist; false if one is missing and `create` is not set.
pub(super) async fn ensure(
    connection: &Reconnecting,
    create: bool,
) -> Result<bool, StatementError> {
    match create {
        true => self::create(connection).await.map(|()| true),
        false => connection.tables_exist(&TABLES).await,
    }
}

/// Error for tables that do not exist.
pub(super) fn missing() -> Error {
    let what = "factlib.redriven, which records redriven letters, does not exist";
    Error::new(ErrorKind::PostgresRefused, what).remedy("run `factlib setup` to create it")
}
