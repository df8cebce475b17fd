//! Sessions whose statements have a time limit: one that is given up is cancelled in the server.
//!
//! A statement whose client has gone goes on waiting for its lock in the server, with a process
//! and a connection of its own; given up every ten seconds, it would take all of them. So the
//! server is asked first what the statement waits for, on a second session, and then told to
//! cancel it. Where that does not reach it, `client_connection_check_interval` ends it (see
//! `session_settings`).

use std::{error::Error as StdError, fmt, ops::Deref, pin::pin, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{connect_info::ConnectInfo, session_settings, sql, waits::WaitsFor};
use crate::{Notice, Result, error::postgres_error};

/// Limit for asking what a statement waits for, and for cancelling it; either may fail.
const ASIDE_LIMIT: Duration = Duration::from_secs(5);
/// Pause before the first look at a statement without a limit. It doubles before each further look,
/// up to `LONGEST_BETWEEN_LOOKS`.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// An ordinary client, and what it takes to cancel what it runs.
pub struct SqlSession {
    client: Client,
    /// Process id of its server process.
    pid: i32,
    /// The one address that it is connected to.
    at: ConnectInfo,
}

/// A statement took too long and was cancelled.
#[derive(Clone, Debug)]
pub struct GivenUp {
    limit: Duration,
    waited_for: Option<WaitsFor>,
}

impl SqlSession {
    /// Connects within `limit`, and sets what our sessions need.
    pub async fn connect(info: &ConnectInfo, limit: Duration) -> Result<Self> {
        let (client, host) = sql::open(info, limit).await?;
        let what = || format!("cannot set up the session with PostgreSQL at {host}");
        let setting = session_settings::statement(&[]);
        let row = client.query_one(&setting, &[]);
        let row = timeout(limit, row).await.map_err(|elapsed| {
            crate::Error::new(crate::ErrorKind::Unavailable, what()).caused_by(elapsed)
        })?;
        let row = row.map_err(|error| postgres_error(what(), error))?;
        let pid = row.try_get::<_, &str>(0).map_err(|error| postgres_error(what(), error))?;
        let pid = pid.parse().unwrap_or_default();
        Ok(SqlSession { client, pid, at: info.only(host) })
    }

    /// The client alone; its statements then have no limit.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Runs `work`, which uses this session, for at most `limit`.
    ///
    /// # Errors
    /// [`GivenUp`], after which this session is to be dropped.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, GivenUp> {
        match timeout(limit, work).await {
            Ok(done) => Ok(done),
            Err(_) => {
                let waited_for = self.waits_for().await;
                self.cancel().await;
                Err(GivenUp { limit, waited_for })
            }
        }
    }

    /// Runs `work` without a limit; cancels it and returns none once `stop` is cancelled. Calls
    /// `tell` whenever it waits for something else than before.
    pub async fn watched<T>(
        &self,
        work: impl Future<Output = T>,
        stop: &CancellationToken,
        mut tell: impl FnMut(&WaitsFor),
    ) -> Option<T> {
        let mut work = pin!(work);
        let (mut pause, mut told) = (FIRST_LOOK, None);
        loop {
            let look = async {
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
                waits_for = look => {
                    if let Some(waits_for) = waits_for.filter(|now| Some(now) != told.as_ref()) {
                        tell(&waits_for);
                        told = Some(waits_for);
                    }
                }
            }
            pause = (pause * 2).min(LONGEST_BETWEEN_LOOKS);
        }
    }

    /// Asks, on another session, what this one waits for.
    async fn waits_for(&self) -> Option<WaitsFor> {
        let asking = async {
            let aside = SqlSession::connect(&self.at, ASIDE_LIMIT).await?;
            let answer = WaitsFor::ask(&aside, self.pid).await;
            answer.map_err(|error| postgres_error("cannot ask what a statement waits for", error))
        };
        match timeout(ASIDE_LIMIT, asking).await {
            Ok(Ok(waits_for)) => waits_for,
            Ok(Err(error)) => {
                self.at.observer().notice(&Notice::WaitUnknown { error: &error });
                None
            }
            Err(_) => None,
        }
    }

    /// Asks the server to cancel this session's statement, if the server can be reached.
    async fn cancel(&self) {
        let token = self.client.cancel_token();
        let cancelling = sql::cancel(&self.at, &token, ASIDE_LIMIT);
        if let Ok(Err(error)) = timeout(ASIDE_LIMIT, cancelling).await {
            self.at.observer().notice(&Notice::NotCancelled { error: &error });
        }
    }
}

impl Deref for SqlSession {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl GivenUp {
    /// Advice for an operator.
    pub fn remedy(&self) -> String {
        match &self.waited_for {
            Some(waits_for) => waits_for.remedy(),
            None => "does a lock hold it up, or is the server overloaded?".into(),
        }
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.limit)?;
        match &self.waited_for {
            Some(waits_for) => write!(f, ", because it waits for {waits_for}"),
            None => Ok(()),
        }
    }
}

impl StdError for GivenUp {}
