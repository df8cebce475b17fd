//! Checks that the relay can read from a server, and chooses the interval of status reports.

use std::time::Duration;

use factlib_postgres::Server;

use crate::{
    Error, ErrorKind, Result,
    config::{Config, PostgresConfig},
};

/// First version that has the plugin pgoutput: PostgreSQL 10.
const OLDEST_SERVER: i32 = 10_00_00;
/// First version that decodes on a standby: PostgreSQL 16.
const OLDEST_DECODING_STANDBY: i32 = 16_00_00;
/// First version whose pgoutput has logical messages: PostgreSQL 14.
const OLDEST_WITH_MESSAGES: i32 = 14_00_00;

/// Refuses a server that can't be read from.
pub(crate) fn check(server: &Server, config: &Config) -> Result<()> {
    check_version(server, config.outbox_tables().is_empty())?;
    check_role(server, config)?;
    check_wal_level(server)
}

/// Refuses a server that is too old; if `messages`, also one without logical messages.
pub(crate) fn check_version(server: &Server, messages: bool) -> Result<()> {
    let major = server.major();
    if server.version() < OLDEST_SERVER {
        let message = format!("PostgreSQL {major} is too old");
        return Err(refused(message).remedy("pgoutput is there from PostgreSQL 10 on"));
    }
    if messages && server.version() < OLDEST_WITH_MESSAGES {
        let message = format!("PostgreSQL {major} is too old for logical messages");
        return Err(refused(message).remedy(
            "they are replicated from PostgreSQL 14 on; postgres.source = \"tables\" \
             relays an outbox table from PostgreSQL 10 on",
        ));
    }
    Ok(())
}

/// Refuses a standby whose primary is not known, or from which this configuration can't be relayed.
pub(crate) fn check_role(server: &Server, config: &Config) -> Result<()> {
    if !server.is_in_recovery() {
        return Ok(());
    }
    if config.postgres.primary_url.is_none() {
        // Transient: it may be promoted, or another host of the list may be the primary.
        let message = "the server is a standby: facts are read from the primary";
        return Err(Error::new(ErrorKind::PostgresUnavailable, message).remedy(
            "name all hosts in postgres.url, with target_session_attrs=read-write; or, to read \
             from this standby, name its primary in postgres.primary_url",
        ));
    }
    if server.version() < OLDEST_DECODING_STANDBY {
        let message = format!("PostgreSQL {} can't be read from as a standby", server.major());
        return Err(refused(message)
            .remedy("standbys decode from PostgreSQL 16 on; name the primary in postgres.url"));
    }
    let unsupported = |what: &str, remedy: &str| {
        Err(refused(format!("{what} does not work with a standby")).remedy(remedy))
    };
    if config.is_exactly_once() {
        // A position in Kafka names a timeline, and the standby's promotion changes it unnoticed.
        let remedy = "name the primary in postgres.url, or set delivery.mode = \"at-least-once\"";
        return unsupported("delivery.mode = \"exactly-once\"", remedy);
    }
    if config.retention.after.is_some() {
        let remedy = "name the primary in postgres.url, or leave retention.after out";
        return unsupported("retention.after", remedy);
    }
    Ok(())
}

/// Refuses a server whose WAL can't be decoded.
pub(crate) fn check_wal_level(server: &Server) -> Result<()> {
    if server.has_logical_wal() {
        return Ok(());
    }
    let message = format!("wal_level is {}, and has to be logical", server.wal_level());
    Err(refused(message)
        .remedy("run ALTER SYSTEM SET wal_level = 'logical' and restart PostgreSQL"))
}

/// Returns the interval of status reports to the server.
pub(crate) fn status_interval(server: &Server, settings: &PostgresConfig) -> Duration {
    // A third, so that after a missed report the next one is still in time.
    let limit = server.wal_sender_timeout().map_or(Duration::MAX, |timeout| timeout / 3);
    // Reports also request a reply of a silent server.
    settings.status_interval.min(limit).min(settings.wal_receiver_timeout / 4)
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::PostgresRefused, message)
}
