//! One connection for statements now and then: opened when it is needed, and again
//! after it broke.

use std::{error::Error as StdError, time::Duration};

use slog::Logger;
use tokio::sync::Mutex;
use tokio_postgres::{Row, error::SqlState, types::ToSql};

use factlib_postgres::{ConnectInfo, GivenUp, SqlSession};

use super::logged;
use crate::Error;

/// Runs statements, one at a time.
pub(crate) struct Reconnecting {
    info: ConnectInfo,
    /// Of one connect, and of one statement.
    timeout: Duration,
    session: Mutex<Option<SqlSession>>,
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

    /// Advice for an operator, if there is any.
    pub fn remedy(&self) -> Option<String> {
        let given_up = self.0.downcast_ref::<GivenUp>().map(GivenUp::remedy);
        let connecting = || Some(self.0.downcast_ref::<Error>()?.advice()?.to_owned());
        given_up.or_else(connecting)
    }
}

impl Reconnecting {
    /// Nothing may take longer than `timeout`.
    pub fn new(info: ConnectInfo, timeout: Duration, log: Logger) -> Self {
        Reconnecting { info: logged(&info, &log), timeout, session: Mutex::new(None) }
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

    /// Closes the connection until the next statement.
    pub async fn close(&self) {
        self.session.lock().await.take();
    }

    /// Runs a statement; a connection that failed is not used again. One that takes too long is
    /// cancelled.
    pub async fn run(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StatementError> {
        let mut slot = self.session.lock().await;
        // Taken out, so that a call that is given up leaves no statement half sent.
        let session = match slot.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => SqlSession::connect(&self.info, self.timeout)
                .await
                .map_err(|error| StatementError(Error::from(error).into()))?,
        };
        match session.within(self.timeout, session.query(statement, parameters)).await {
            Ok(Ok(rows)) => {
                *slot = Some(session);
                Ok(rows)
            }
            Ok(Err(error)) => Err(StatementError(error.into())),
            Err(given_up) => Err(StatementError(given_up.into())),
        }
    }
}
