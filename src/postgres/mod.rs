//! PostgreSQL: where it is, how to log in, and what it sends.
//!
//! | file | idea |
//! | --- | --- |
//! | `connection_string`, `settings`, `passfile`, `connect_info` | libpq's connection strings |
//! | `connector` | hosts, addresses, time and TLS tried in turn, for every kind of connection |
//! | `stream`, `tls` | one connection's bytes |
//! | `session`, `auth` | log in and simple queries, in the replication protocol |
//! | `replication` | the stream of changes and its confirmation |
//! | [`frame`], [`pgoutput`] | pure parsers of that stream |
//! | [`sql`] | ordinary clients |
//! | `reconnecting` | a connection for statements now and then |
//! | `slot` | server, slot and publication, as SQL sees them |
//! | `timeline` | pure: which positions a timeline's history has |
//! | `errors` | what the server's errors mean for us |

mod auth;
mod connect_info;
mod connection_string;
mod connector;
mod errors;
#[doc(hidden)] // For fuzzing: raw protocol, and no promise.
pub mod frame;
mod passfile;
pub mod pgoutput;
mod reconnecting;
pub(crate) mod replication;
mod session;
mod settings;
pub(crate) mod slot;
pub mod sql;
mod stream;
pub(crate) mod timeline;
mod tls;

pub use self::connect_info::ConnectInfo;
pub(crate) use self::{
    errors::{ServerError, postgres_error},
    reconnecting::{Reconnecting, StatementError},
};
use crate::{Result, config::PostgresConfig};

/// An ordinary client, for statements: the connection string, TLS and timeouts are those of the relay.
///
/// # Errors
/// A malformed connection string; a server that can't be reached or refuses.
pub async fn connect(
    config: &PostgresConfig,
    log: &slog::Logger,
) -> Result<tokio_postgres::Client> {
    sql::connect(&config.connect_info()?, config.connect_timeout, log).await
}
