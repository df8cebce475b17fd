//! Sessions with a time limit for statements: one that takes too long is cancelled in the server.
//!
//! A statement whose client has gone keeps waiting for its lock in the server, and occupies a process
//! and a connection; retries every few seconds would use up all connections. Therefore a second
//! session asks what the statement waits for, and then cancels it. If the request does not arrive,
//! `client_connection_check_interval` ends the statement (see `session_settings`).

use std::{error::Error as StdError, fmt, ops::Deref, pin::pin, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{connect_info::ConnectInfo, session_settings, sql, waits::WaitsFor};
use crate::{Notice, Result, error::postgres_error};

/// Limit for asking what a statement waits for, and for cancelling it.
const SIDE_SESSION_LIMIT: Duration = Duration::from_secs(5);
/// Pause before the first check of a statement without a limit. It doubles before each further
/// check, up to `CHECK_PAUSE_MAX`.
const FIRST_CHECK_AFTER: Duration = Duration::from_secs(1);
const CHECK_PAUSE_MAX: Duration = Duration::from_secs(60);

/// An ordinary client whose statements can be limited, watched and cancelled.
pub struct SqlSession {
    client: Client,
    /// Process id of the server process.
    pid: i32,
    /// The address that the client is connected to.
    server: ConnectInfo,
}

/// Error for a statement that took too long and was cancelled.
#[derive(Clone, Debug)]
pub struct StatementTimeout {
    limit: Duration,
    waited_for: Option<WaitsFor>,
}

impl SqlSession {
    /// Connects within `limit` and applies the session settings.
    pub async fn connect(info: &ConnectInfo, limit: Duration) -> Result<Self> {
        let (client, host) = sql::open(info, limit).await?;
        let message = || format!("cannot set up the session with PostgreSQL at {host}");
        let setting = session_settings::statement(&[]);
        let row = client.query_one(&setting, &[]);
        let row = timeout(limit, row).await.map_err(|elapsed| {
            crate::Error::new(crate::ErrorKind::Unavailable, message()).caused_by(elapsed)
        })?;
        let row = row.map_err(|error| postgres_error(message(), error))?;
        let pid = row.try_get::<_, &str>(0).map_err(|error| postgres_error(message(), error))?;
        let pid = pid.parse().unwrap_or_default();
        Ok(SqlSession { client, pid, server: info.only(host) })
    }

    /// Returns the client, whose statements then have no limit.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Runs `work`, which uses this session, for at most `limit`.
    ///
    /// # Errors
    /// [`StatementTimeout`]; drop the session after it.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, StatementTimeout> {
        match timeout(limit, work).await {
            Ok(done) => Ok(done),
            Err(_) => {
                let waited_for = self.waits_for().await;
                self.cancel().await;
                Err(StatementTimeout { limit, waited_for })
            }
        }
    }

    /// Runs `work` without a limit; cancels it and returns none once `stop` is cancelled. Calls
    /// `on_wait` whenever the cause of its waiting changes.
    pub async fn run_watched<T>(
        &self,
        work: impl Future<Output = T>,
        stop: &CancellationToken,
        mut on_wait: impl FnMut(&WaitsFor),
    ) -> Option<T> {
        let mut work = pin!(work);
        let (mut pause, mut reported) = (FIRST_CHECK_AFTER, None);
        loop {
            let check = async {
                sleep(pause).await;
                self.waits_for().await
            };
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = stop.cancelled() => {
                    self.cancel().await;
                    return None;
                }
                waits_for = check => {
                    if let Some(waits_for) = waits_for.filter(|now| Some(now) != reported.as_ref()) {
                        on_wait(&waits_for);
                        reported = Some(waits_for);
                    }
                }
            }
            pause = (pause * 2).min(CHECK_PAUSE_MAX);
        }
    }

    /// Asks on another session what this one waits for.
    async fn waits_for(&self) -> Option<WaitsFor> {
        let asking = async {
            let side_session = SqlSession::connect(&self.server, SIDE_SESSION_LIMIT).await?;
            let answer = WaitsFor::ask(&side_session, self.pid).await;
            answer.map_err(|error| postgres_error("cannot ask what a statement waits for", error))
        };
        match timeout(SIDE_SESSION_LIMIT, asking).await {
            Ok(Ok(waits_for)) => waits_for,
            Ok(Err(error)) => {
                self.server.observer().notice(&Notice::WaitUnknown { error: &error });
                None
            }
            Err(_) => None,
        }
    }

    /// Asks the server to cancel this session's statement, if the server can be reached.
    async fn cancel(&self) {
        let token = self.client.cancel_token();
        let cancelling = sql::cancel(&self.server, &token, SIDE_SESSION_LIMIT);
        if let Ok(Err(error)) = timeout(SIDE_SESSION_LIMIT, cancelling).await {
            self.server.observer().notice(&Notice::NotCancelled { error: &error });
        }
    }
}

impl Deref for SqlSession {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl StatementTimeout {
    /// Advice for an operator.
    pub fn remedy(&self) -> String {
        match &self.waited_for {
            Some(waits_for) => waits_for.remedy(),
            None => "does a lock hold it up, or is the server overloaded?".into(),
        }
    }
}

impl fmt::Display for StatementTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.limit)?;
        match &self.waited_for {
            Some(waits_for) => write!(f, ", because it waits for {waits_for}"),
            None => Ok(()),
        }
    }
}

impl StdError for StatementTimeout {}
