//! The relay's own rules for PostgreSQL: accepted servers, slots, retained WAL, log lines.
//!
//! The client itself is the crate `factlib-postgres`.
//!
//! | file | idea |
//! | --- | --- |
//! | `managed` | recognises managed services, and knows what differs there |
//! | `notices` | logs the notices of the client |
//! | [`sql`] | ordinary clients for programs that embed the relay |
//! | `reconnecting` | a connection for occasional statements, opened on demand |
//! | `server` | checks that the relay can read from a server |
//! | `slot_reader` | finds the process that reads a slot, and ends our own lost one |
//! | `commit_report` | asks what standbys have flushed, and which transactions are visible |
//! | `retention` | reads how much WAL a slot retains, and for which transaction |

pub(crate) mod commit_report;
pub(crate) mod managed;
mod notices;
mod reconnecting;
pub(crate) mod retention;
pub(crate) mod server;
pub(crate) mod slot_reader;
pub mod sql;

pub use factlib_postgres::ConnectInfo;

pub(crate) use self::{
    notices::{logged, read_encoding, sql_session},
    reconnecting::{GRANT_ALL, Reconnecting, StatementError},
};
use crate::Error;

/// Connects an ordinary client with the connection string, TLS and timeouts of the relay.
///
/// # Errors
/// `Config` for a malformed connection string; the server's error, or that it can't be reached.
pub async fn connect(
    config: &crate::config::PostgresConfig,
    log: &slog::Logger,
) -> crate::Result<tokio_postgres::Client> {
    let info = config.connect_info()?;
    Ok(sql_session(&info, config.connect_timeout, log).await?.into_client())
}

/// Classifies an error of a tokio-postgres client; `message` says what failed.
pub(crate) fn postgres_error(message: impl Into<String>, error: tokio_postgres::Error) -> Error {
    factlib_postgres::Error::from_client(message, error).into()
}

/// Returns the SQLSTATE among the causes of `error`, if the server sent one.
pub(crate) fn sqlstate(error: &Error) -> Option<&str> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<factlib_postgres::ServerError>() {
            return Some(&error.code);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests;
