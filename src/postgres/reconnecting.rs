//! A connection for occasional statements: opened on demand, and again after it broke.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use slog::Logger;
use tokio::{sync::Mutex, time::sleep};
use tokio_postgres::{Row, error::SqlState, types::ToSql};

use factlib_postgres::{ConnectInfo, SqlSession, StatementTimeout};

use super::logged;
use crate::{Error, ErrorKind};

/// Remedy for a user who lacks rights on a table that the relay writes.
pub(crate) const GRANT_ALL: &str =
    "GRANT USAGE ON SCHEMA factlib and SELECT, INSERT, UPDATE, DELETE on the table to this user";

const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A connection for statements, one at a time. Clones share it.
#[derive(Clone)]
pub(crate) struct Reconnecting {
    info: ConnectInfo,
    /// Limit for connecting, and for each statement.
    timeout: Duration,
    /// Time after which an idle connection is closed; none: it is kept.
    idle_limit: Option<Duration>,
    session: Arc<Mutex<Session>>,
}

#[derive(Default)]
struct Session {
    open: Option<SqlSession>,
    /// Number of statements so far.
    statements: u64,
}

/// The error of a statement, or of connecting for it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct StatementError(Box<dyn StdError + Send + Sync>);

impl StatementError {
    /// The SQLSTATE, if the server sent the error.
    pub fn code(&self) -> Option<&SqlState> {
        self.0.downcast_ref::<tokio_postgres::Error>()?.code()
    }

    /// True if a table or its schema does not exist.
    pub fn is_missing_table(&self) -> bool {
        matches!(self.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME))
    }

    fn lacks_privilege(&self) -> bool {
        self.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// The kind for a command that needs the table now.
    pub fn kind(&self) -> ErrorKind {
        match self.is_missing_table() || self.lacks_privilege() {
            true => ErrorKind::PostgresRefused,
            false => ErrorKind::PostgresUnavailable,
        }
    }

    /// Makes an error of it. `grant` is the remedy for a user who lacks rights on the table.
    pub fn explained(self, kind: ErrorKind, what: String, grant: &str) -> Error {
        let failed = Error::new(kind, what);
        match self.remedy() {
            _ if self.is_missing_table() => failed.remedy("run `factlib setup` to create it"),
            _ if self.lacks_privilege() => failed.remedy(grant),
            Some(remedy) => failed.remedy(remedy),
            None => failed,
        }
        .caused_by(self)
    }

    /// Advice for an operator, if there is any.
    pub fn remedy(&self) -> Option<String> {
        let statement_timeout =
            self.0.downcast_ref::<StatementTimeout>().map(StatementTimeout::remedy);
        let connecting = || Some(self.0.downcast_ref::<Error>()?.advice()?.to_owned());
        statement_timeout.or_else(connecting)
    }
}

impl Reconnecting {
    /// Connects at the first statement. Connecting and each statement may take `timeout`.
    pub fn new(info: ConnectInfo, timeout: Duration, log: Logger) -> Self {
        Reconnecting {
            info: logged(&info, &log),
            timeout,
            idle_limit: None,
            session: Arc::default(),
        }
    }

    /// Closes the connection until the next statement when it has been idle for a minute: longer than a
    /// start takes, also that of a standby.
    pub fn closed_when_idle(mut self) -> Self {
        self.idle_limit = Some(IDLE_LIMIT);
        self
    }

    /// Describes the server and the database, without secrets.
    pub fn describe(&self) -> String {
        self.info.describe()
    }

    /// Returns true if all of these tables exist.
    pub async fn tables_exist(&self, tables: &[&str]) -> Result<bool, StatementError> {
        let query =
            "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest($1::text[]) AS name";
        let rows = self.run(query, &[&tables]).await?;
        Ok(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)))
    }

    /// Creates these tables by `statements`, unless they all exist.
    pub async fn create_tables(
        &self,
        tables: &[&str],
        statements: &str,
    ) -> Result<(), StatementError> {
        // Look first: IF NOT EXISTS requires the right to create even if nothing is missing.
        match self.tables_exist(tables).await? {
            true => Ok(()),
            false => self.run_all(statements).await,
        }
    }

    /// Runs statements without parameters, each of which ends at the end of a line.
    async fn run_all(&self, statements: &str) -> Result<(), StatementError> {
        for statement in statements.split_inclusive(";\n") {
            self.run(statement, &[]).await?;
        }
        Ok(())
    }

    /// Runs a statement, and cancels it if it takes too long. A connection that failed is not used
    /// again.
    pub async fn run(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StatementError> {
        let mut guard = self.session.lock().await;
        // Taken out, so that a cancelled call leaves no half-sent statement behind.
        let session = match guard.open.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => SqlSession::connect(&self.info, self.timeout)
                .await
                .map_err(|error| StatementError(Error::from(error).into()))?,
        };
        match session.within(self.timeout, session.query(statement, parameters)).await {
            Ok(Ok(rows)) => {
                guard.open = Some(session);
                guard.statements += 1;
                self.close_when_idle(guard.statements);
                Ok(rows)
            }
            Ok(Err(error)) => Err(StatementError(error.into())),
            Err(statement_timeout) => Err(StatementError(statement_timeout.into())),
        }
    }

    /// Closes the connection in time unless another statement comes after this one.
    fn close_when_idle(&self, last: u64) {
        let Some(limit) = self.idle_limit else { return };
        let session = Arc::downgrade(&self.session);
        tokio::spawn(async move {
            sleep(limit).await;
            let Some(session) = session.upgrade() else { return };
            let mut session = session.lock().await;
            if session.statements == last {
                session.open = None;
            }
        });
    }
}
