//! Looks up publications, and writes the statement that creates one.

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use crate::{Result, error::postgres_error};

/// Returns true if the publication exists.
pub async fn exists(client: &Client, name: &str) -> Result<bool> {
    let statement = "SELECT FROM pg_publication WHERE pubname = $1";
    let failed = |error| postgres_error(format!("cannot look up publication {name}"), error);
    Ok(client.query_opt(statement, &[&name]).await.map_err(failed)?.is_some())
}

/// Returns the statement that creates a publication without tables, which is enough for logical
/// messages.
pub fn create_sql(name: &str) -> String {
    format!("CREATE PUBLICATION {}", escape_identifier(name))
}
