//! Lists the databases of a server that match `fleet.databases`.

use slog::Logger;

use crate::{
    Result,
    config::Config,
    postgres::{connect, postgres_error},
};

/// A database that a tenant is about to leave takes no connections: `ALTER DATABASE … ALLOW_CONNECTIONS
/// false` ends its pipeline, so that it can be dropped.
const LIST: &str = "\
SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";

/// Lists the databases of the configured server that `fleet.databases` matches; any role may ask.
///
/// # Errors
/// The server can't be reached.
pub async fn databases(config: &Config, log: &Logger) -> Result<Vec<String>> {
    let client = connect(&config.postgres, log).await?;
    let rows = client.query(LIST, &[]).await;
    let rows = rows.map_err(|error| postgres_error("cannot list the databases", error))?;
    let names = rows.iter().map(|row| row.get(0));
    Ok(names.filter(|name: &String| config.fleet.has_database(name)).collect())
}
