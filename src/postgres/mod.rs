//! The relay's side of PostgreSQL: what it logs of its connections, and the rules of its own.
//!
//! The client itself is the crate `factlib-postgres`.
//!
//! | file | idea |
//! | --- | --- |
//! | `notices` | logs what the client notices |
//! | [`sql`] | ordinary clients for those who embed the relay |
//! | `reconnecting` | a connection for statements now and then |
//! | `server` | which servers the relay can read from |
//! | `slot_reader` | who reads a slot, and the end of our own lost reader |
//! | `retention` | how much WAL a slot keeps, and for whose sake |

mod notices;
mod reconnecting;
pub(crate) mod retention;
pub(crate) mod server;
pub(crate) mod slot_reader;
pub mod sql;

pub use factlib_postgres::ConnectInfo;

pub(crate) use self::{
    notices::{logged, read_encoding, sql_session},
    reconnecting::{Reconnecting, StatementError},
};
use crate::Error;

/// An ordinary client, for statements: the connection string, TLS and timeouts are those of the relay.
///
/// # Errors
/// A malformed connection string; a server that can't be reached or refuses.
pub async fn connect(
    config: &crate::config::PostgresConfig,
    log: &slog::Logger,
) -> crate::Result<tokio_postgres::Client> {
    let info = config.connect_info()?;
    Ok(sql_session(&info, config.connect_timeout, log).await?.into_client())
}

/// An error of a tokio-postgres client; `what` says what fails.
pub(crate) fn postgres_error(what: impl Into<String>, error: tokio_postgres::Error) -> Error {
    factlib_postgres::Error::from_client(what, error).into()
}

/// The SQLSTATE at the root of `error`, if the server sent one.
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
