//! PostgreSQL: where it is, how to log in, and what it sends.
//!
//! | file | idea |
//! | --- | --- |
//! | `connection_string`, `service_file`, `settings`, `passfile`, `password_file`, `connect_info` | libpq's connection strings |
//! | `require_auth` | ways to log in that a server may ask for |
//! | `silent_hosts` | which hosts are tried last |
//! | `connector` | hosts, addresses, time and TLS tried in turn, for every kind of connection |
//! | `stream`, `tls` | one connection's bytes |
//! | `session`, `auth` | log in and simple queries, in the replication protocol |
//! | `pinned`, `encoding` | how the server writes values as text, and in which encoding |
//! | `rows` | the rows of a query, as the server writes them |
//! | `replication` | the stream of changes and its confirmation |
//! | [`frame`], [`pgoutput`] | pure parsers of that stream |
//! | [`sql`] | ordinary clients |
//! | `session_settings` | what each session sets for itself |
//! | `bounded`, `waits` | statements that end, and what they wait for |
//! | `reconnecting` | a connection for statements now and then |
//! | `slot`, `slot_reader` | server, slot and publication, as SQL sees them; who reads a slot |
//! | `retention` | how much WAL a slot keeps, and for whose sake |
//! | `timeline` | pure: which positions a timeline's history has |
//! | `errors` | what the server's errors mean for us |

mod auth;
mod bounded;
mod connect_info;
mod connection_string;
mod connector;
pub(crate) mod encoding;
mod errors;
#[doc(hidden)] // For fuzzing: raw protocol, and no promise.
pub mod frame;
mod passfile;
mod password_file;
pub mod pgoutput;
pub(crate) mod pinned;
mod reconnecting;
pub(crate) mod replication;
mod require_auth;
pub(crate) mod retention;
pub(crate) mod rows;
mod service_file;
mod session;
mod session_settings;
mod settings;
mod silent_hosts;
pub(crate) mod slot;
pub(crate) mod slot_reader;
pub mod sql;
mod stream;
pub(crate) mod timeline;
mod tls;
mod waits;

pub use self::connect_info::ConnectInfo;
pub(crate) use self::errors::{postgres_error, sqlstate};
pub(crate) use self::{
    bounded::{GivenUp, SqlSession},
    password_file::PasswordFile,
    reconnecting::{Reconnecting, StatementError},
    waits::WaitsFor,
};

/// An ordinary client, for statements: the connection string, TLS and timeouts are those of the relay.
///
/// # Errors
/// A malformed connection string; a server that can't be reached or refuses.
pub async fn connect(
    config: &crate::config::PostgresConfig,
    log: &slog::Logger,
) -> crate::Result<tokio_postgres::Client> {
    let info = config.connect_info()?;
    Ok(SqlSession::connect(&info, config.connect_timeout, log).await?.into_client())
}
