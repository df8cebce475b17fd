//! One connection for statements now and then: opened when it is needed, and again
//! after it broke.

use std::{error::Error as StdError, time::Duration};

use slog::Logger;
use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::{Client, Row, error::SqlState, types::ToSql};

use super::{ConnectInfo, sql};

/// Runs statements, one at a time.
pub(crate) struct Reconnecting {
    info: ConnectInfo,
    /// Of one connect, and of one statement.
    timeout: Duration,
    log: Logger,
    client: Mutex<Option<Client>>,
}

/// Why a statement did not succeed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct StatementError(Box<dyn StdError + Send + Sync>);

impl StatementError {
    /// What the server said, if it was the server.
    pub fn code(&self) -> Option<&SqlState> {
        self.0.downcast_ref::<tokio_postgres::Error>()?.code()
    }
}

impl Reconnecting {
    /// Nothing may take longer than `timeout`.
    pub fn new(info: ConnectInfo, timeout: Duration, log: Logger) -> Self {
        Reconnecting { info, timeout, log, client: Mutex::new(None) }
    }

    /// Where it connects to; no secret.
    pub fn describe(&self) -> String {
        self.info.describe()
    }

    /// Are all of these tables there?
    pub async fn exist(&self, tables: &[&str]) -> Result<bool, StatementError> {
        let query =
            "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest($1::text[]) AS name";
        let rows = self.run(query, &[&tables]).await?;
        Ok(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)))
    }

    /// Runs statements, each of which ends with its line, without parameters.
    pub async fn run_all(&self, statements: &str) -> Result<(), StatementError> {
        for statement in statements.split_inclusive(";\n") {
            self.run(statement, &[]).await?;
        }
        Ok(())
    }

    /// Runs a statement; a connection that failed is not used again.
    pub async fn run(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StatementError> {
        let mut slot = self.client.lock().await;
        // Taken out, so that a call that is given up leaves no statement half sent.
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => sql::connect(&self.info, self.timeout, &self.log)
                .await
                .map_err(|error| StatementError(error.into()))?,
        };
        match timeout(self.timeout, client.query(statement, parameters)).await {
            Ok(Ok(rows)) => {
                *slot = Some(client);
                Ok(rows)
            }
            Ok(Err(error)) => Err(StatementError(error.into())),
            Err(elapsed) => Err(StatementError(elapsed.into())),
        }
    }
}
