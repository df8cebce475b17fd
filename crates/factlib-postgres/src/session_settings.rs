//! Settings that each of our sessions sets for itself, whatever the server, the database and the
//! role have.
//!
//! They are set by a statement right after the log-in: as start-up parameters, a pooler such as
//! PgBouncer would refuse those that it does not track. A setting that the server does not have,
//! or does not let a session change, is left out.

/// Settings of every session.
const EVERY: &[(&str, &str)] = &[
    // Positions, dead letters and publications are written.
    ("default_transaction_read_only", "off"),
    // We limit each statement ourselves, and say what it waited for when we give it up. Creating
    // a slot has to wait for transactions of others, however long.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("transaction_timeout", "0"),
    // Sessions rest between two statements, for as long as nothing happens.
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // A process whose client is gone must not go on waiting for a lock (from PostgreSQL 14 on).
    ("client_connection_check_interval", "2s"),
];

/// The longest `wal_sender_timeout` that a replication connection of ours keeps: a server process
/// whose relay is gone without a word frees the slot after it.
pub(super) const WAL_SENDER_TIMEOUT_MAX_MS: u32 = 300_000;

/// The statement that sets all of it, and these. It answers one row: the process that serves the
/// session, and when that began.
pub(super) fn statement(more: &[(&str, &str)]) -> String {
    let values = EVERY.iter().chain(more).map(|(name, value)| format!("('{name}', '{value}')"));
    let values = values.collect::<Vec<_>>().join(", ");
    // The connection check is refused where the server's system has no way to do it.
    format!(
        "SELECT pg_catalog.pg_backend_pid()::text, \
         (SELECT {STARTED} FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()), \
         pg_catalog.count(pg_catalog.set_config(s.name, v.value, false))::text \
         FROM pg_catalog.pg_settings s JOIN (VALUES {values}) AS v(name, value) ON v.name = pg_catalog.lower(s.name) \
         WHERE s.context = 'user' \
         AND (s.name <> 'client_connection_check_interval' OR pg_catalog.version() ~* 'linux|darwin|bsd')"
    )
}

/// SQL for the time at which the process of `pg_stat_activity a` began, whatever the session's time
/// zone.
pub(super) const STARTED: &str =
    "(pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))";
