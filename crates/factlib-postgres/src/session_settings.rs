//! Settings that each session sets for itself, independent of the defaults of server, database and
//! role.
//!
//! A statement sets them right after the login: a pooler such as PgBouncer would refuse start-up
//! parameters that it does not track. Settings that the server does not have, or does not let a
//! session change, are left out.

use std::time::Duration;

/// Settings of every session.
const EVERY_SESSION: &[(&str, &str)] = &[
    // Sessions also write.
    ("default_transaction_read_only", "off"),
    // The client limits each statement itself, and reports what it waited for. Creating a slot has
    // to wait for other transactions, however long they take.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("transaction_timeout", "0"),
    // Sessions may be idle for any time.
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // A server process must stop waiting for a lock when its client is gone (PostgreSQL 14 on).
    ("client_connection_check_interval", "2s"),
];

/// Maximum `wal_sender_timeout` of a replication connection: the time after which the server frees
/// the slot of a client that disappeared silently.
pub(super) const WAL_SENDER_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Returns the statement that sets all of them and `additional` ones. It returns one row, which begins
/// with the pid of the server process.
pub(super) fn statement(additional: &[(&str, &str)]) -> String {
    let values = EVERY_SESSION
        .iter()
        .chain(additional)
        .map(|(name, value)| format!("('{name}', '{value}')"));
    let values = values.collect::<Vec<_>>().join(", ");
    // On some systems, the server refuses `client_connection_check_interval`.
    format!(
        "SELECT pg_catalog.pg_backend_pid()::text, \
         pg_catalog.count(pg_catalog.set_config(s.name, v.value, false))::text \
         FROM pg_catalog.pg_settings s JOIN (VALUES {values}) AS v(name, value) ON v.name = pg_catalog.lower(s.name) \
         WHERE s.context = 'user' \
         AND (s.name <> 'client_connection_check_interval' OR pg_catalog.version() ~* 'linux|darwin|bsd')"
    )
}

/// Returns the query for the start time of the session's server process. It costs the server more than
/// a login where there are hundreds of sessions.
pub(super) fn started_query() -> String {
    format!(
        "SELECT {STARTED} FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()"
    )
}

/// SQL for the start time of the process in `pg_stat_activity a`, independent of the session's time
/// zone.
const STARTED: &str =
    "(pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))";
