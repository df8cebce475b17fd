//! Ordinary clients, over the same hosts, TLS and rules as the replication connection.

use std::time::Duration;

use factlib_postgres::ConnectInfo;
use tokio_postgres::Client;

use super::postgres_error;
use crate::Result;

/// Limit for one attempt to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects by a connection string as libpq takes it.
///
/// The client's connection ends when the client is dropped.
///
/// # Errors
/// `Config` for the string, `PostgresUnavailable` or `PostgresRefused` for the attempt.
pub async fn connect_url(url: &str) -> Result<Client> {
    connect_info(&ConnectInfo::parse(url)?).await
}

/// Connects as [`connect_url`] does.
pub(crate) async fn connect_info(info: &ConnectInfo) -> Result<Client> {
    let info = info.clone().with_default_application_name("factlib");
    Ok(factlib_postgres::connect(&info, CONNECT_LIMIT).await?)
}

/// Runs statements without parameters; `what` says what fails if one does.
///
/// # Errors
/// What the server says; those before it have been undone.
pub async fn run(client: &Client, what: &str, statements: &str) -> Result<()> {
    client.batch_execute(statements).await.map_err(|error| postgres_error(what, error))
}
