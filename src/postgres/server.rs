//! Which servers the relay can read from, and how often it reports to one.

use std::time::Duration;

use factlib_postgres::Server;

use crate::{Error, ErrorKind, Result, config::PostgresConfig};

/// The plugin pgoutput is there from PostgreSQL 10 on.
const OLDEST_SERVER: i32 = 10_00_00;
/// Logical messages reach it from PostgreSQL 14 on.
const OLDEST_WITH_MESSAGES: i32 = 14_00_00;

/// Refuses a server that a slot can't be read from, or that has no logical messages
/// where these are to be read.
pub(crate) fn check(server: &Server, messages: bool) -> Result<()> {
    check_version(server, messages)?;
    check_primary(server)?;
    check_wal_level(server)
}

/// Refuses one that is too old.
pub(crate) fn check_version(server: &Server, messages: bool) -> Result<()> {
    let major = server.major();
    if server.version() < OLDEST_SERVER {
        let what = format!("PostgreSQL {major} is too old");
        return Err(refused(what).remedy("pgoutput is there from PostgreSQL 10 on"));
    }
    if messages && server.version() < OLDEST_WITH_MESSAGES {
        let what = format!("PostgreSQL {major} is too old for logical messages");
        return Err(refused(what).remedy(
            "they are replicated from PostgreSQL 14 on; postgres.source = \"tables\" \
             relays an outbox table from PostgreSQL 10 on",
        ));
    }
    Ok(())
}

/// Refuses a standby.
pub(crate) fn check_primary(server: &Server) -> Result<()> {
    if !server.is_in_recovery() {
        return Ok(());
    }
    // It may be promoted any moment, or another host of the list be the primary.
    let what = "the server is a standby: facts are read from the primary";
    Err(Error::new(ErrorKind::PostgresUnavailable, what)
        .remedy("name all hosts in postgres.url, with target_session_attrs=read-write"))
}

/// Refuses one whose WAL can't be decoded.
pub(crate) fn check_wal_level(server: &Server) -> Result<()> {
    if server.wal_level() == "logical" {
        return Ok(());
    }
    let what = format!("wal_level is {}, and has to be logical", server.wal_level());
    Err(refused(what).remedy("run ALTER SYSTEM SET wal_level = 'logical' and restart PostgreSQL"))
}

/// Interval at which the server is told our position.
pub(crate) fn status_interval(server: &Server, settings: &PostgresConfig) -> Duration {
    // A third: one report may be lost in a pause, and the next still comes in time.
    let limit = server.wal_sender_timeout().map_or(Duration::MAX, |timeout| timeout / 3);
    // A report is where a silent server is asked for an answer.
    settings.status_interval.min(limit).min(settings.wal_receiver_timeout / 4)
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::PostgresRefused, what)
}
