//! Connects ordinary clients by the same rules as the relay, for programs that embed it.

use std::time::Duration;

use factlib_postgres::ConnectInfo;
use tokio_postgres::Client;

use super::postgres_error;
use crate::Result;

/// Time limit for connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects by a connection string of libpq.
///
/// The connection ends when the client is dropped.
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

/// Runs statements without parameters; `message` says what failed if one does.
///
/// # Errors
/// The error of the server; all statements are then undone.
pub async fn run(client: &Client, message: &str, statements: &str) -> Result<()> {
    client.batch_execute(statements).await.map_err(|error| postgres_error(message, error))
}
