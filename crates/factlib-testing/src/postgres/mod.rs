//! A throwaway PostgreSQL server with its own data folder.
//!
//! **Life cycle.** [`PostgresServer::start`] makes a data folder, starts the server on a port of
//! 127.0.0.1 and on a Unix socket, and returns when it answers a query. It can be stopped and
//! started again on the same port and data. When it is dropped, or this process ends for any
//! reason, the server is stopped and the folder removed (see `process`).

mod binaries;
mod builder;
mod processes;
mod standby;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Config, NoTls};

pub use self::{builder::PostgresServerBuilder, standby::StandbyBuilder};
use crate::{
    Error, ErrorKind, Result,
    process::{GuardedChild, Owner, ServerHome},
};

/// Includes recovery after an immediate stop.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Interval of queries until the server is ready: no event signals it, and a query costs less than a
/// millisecond.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// PostgreSQL's shutdown modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends every session, waits until walsenders have sent all WAL, and writes a checkpoint.
    Fast,
    /// Ends at once, as in a crash: the next start recovers from the WAL.
    Immediate,
}

/// A throwaway PostgreSQL server; its superuser is `postgres`.
///
/// ```no_run
/// # async fn example() -> factlib_testing::Result<()> {
/// use factlib_testing::{PostgresServer, StopMode};
///
/// let server = PostgresServer::start().await?;
/// let database = server.create_database("orders").await?;
/// println!("{}", server.url_for(&database));
/// server.restart(StopMode::Immediate).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    postgres: PathBuf,
    owner: Option<Owner>,
    port: u16,
    settings: Mutex<BTreeMap<String, String>>,
    /// Set while it is a standby.
    receipt: Mutex<Option<standby::Receipt>>,
    child: Mutex<Option<GuardedChild>>,
    home: ServerHome,
}

impl PostgresServer {
    /// Starts a server with the builder's defaults: `wal_level = logical`, no passwords.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder for a server with other settings.
    pub fn builder() -> PostgresServerBuilder {
        PostgresServerBuilder::new()
    }

    /// Returns the URL of the database `postgres`, over TCP.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// Returns the URL of a database, over TCP.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
    }

    /// Returns the path of a program of the same installation: `psql`, `pg_recvlogical`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.postgres.with_file_name(name)
    }

    /// Returns the process id of the postmaster; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().filter(|child| child.is_running()).map(GuardedChild::pid)
    }

    /// Returns the end of the server's log.
    pub fn log(&self) -> String {
        self.child().as_ref().map(GuardedChild::log_tail).unwrap_or_default()
    }

    /// Stops the server and waits for its end.
    pub async fn stop(&self, mode: StopMode) {
        let Some(child) = self.child().clone() else { return };
        child.signal(match mode {
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        });
        child.exited_or_killed(STOP_LIMIT).await;
    }

    /// Starts the server again after [`stop`](Self::stop), on the same port and data.
    pub async fn start_again(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let child = self.home.spawn("postgres", &self.postgres, ["-D", "data"], self.owner)?;
        *self.child() = Some(child.clone());
        tokio::select! {
            _ = child.exited() => Err(server_error("PostgreSQL ended while it started", &child)),
            ready = self.ready(&child) => ready,
        }
    }

    /// Copies a stopped server's data, in place of an earlier copy.
    pub async fn back_up(&self) -> Result<()> {
        self.copy("data", "backup").await
    }

    /// Replaces a stopped server's data by the copy of the last [`back_up`](Self::back_up).
    pub async fn restore(&self) -> Result<()> {
        self.copy("backup", "data").await
    }

    /// Starts a stopped server as after a promotion or a restore: it replays its WAL and begins a new
    /// timeline.
    pub async fn start_on_new_timeline(&self) -> Result<()> {
        self.set("restore_command", "false")?;
        let signal = self.home.write("data/recovery.signal", "")?;
        self.owner.map_or(Ok(()), |owner| owner.give(&signal))?;
        self.start_again().await?;
        self.recovered().await
    }

    /// Stops the server and starts it again.
    pub async fn restart(&self, mode: StopMode) -> Result<()> {
        self.stop(mode).await;
        self.start_again().await
    }

    /// Changes a setting, with effect from the next [`reload`](Self::reload) or start.
    pub fn set(&self, name: impl Into<String>, value: impl Into<String>) -> Result<()> {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.into(), value.into());
        self.write_settings()
    }

    /// Makes the server read its settings again, and waits until it has.
    pub async fn reload(&self) -> Result<()> {
        const LOADED: &str = "SELECT pg_conf_load_time()::text";
        let before = self.query_text("postgres", LOADED).await?;
        if let Some(child) = &*self.child() {
            child.signal(Signal::SIGHUP);
        }
        // A new session has the settings of the postmaster that forked it.
        let failure = "PostgreSQL does not read its settings again";
        self.answers(LOADED, |time| time != before, failure).await
    }

    /// Opens a session over the Unix socket as superuser; a task of this runtime drives it.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        let mut config = Config::new();
        config.host_path(self.socket_dir()).port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await.map_err(|cause| {
            unavailable(&format!("cannot connect to database {database}")).caused_by(cause)
        })?;
        // The client's next query returns the connection's error.
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    }

    /// Creates a database and returns its name: `prefix` with a unique suffix.
    pub async fn create_database(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}_{}", uuid::Uuid::now_v7().simple());
        self.execute("postgres", &format!("CREATE DATABASE \"{name}\"")).await?;
        Ok(name)
    }

    /// Executes statements in a new session.
    pub async fn execute(&self, database: &str, statements: &str) -> Result<()> {
        let client = self.connect(database).await?;
        client.batch_execute(statements).await.map_err(refused)
    }

    /// Returns the first column of a query's only row, which must be text.
    pub async fn query_text(&self, database: &str, query: &str) -> Result<String> {
        let client = self.connect(database).await?;
        let row = client.query_one(query, &[]).await.map_err(refused)?;
        row.try_get(0).map_err(refused)
    }

    async fn ready(&self, child: &GuardedChild) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.query_text("postgres", "SELECT 'ready'").await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(server_error("PostgreSQL does not answer", child).caused_by(error));
                }
                Err(_) => sleep(PROBE_INTERVAL).await,
            }
        }
    }

    /// Waits for the end of recovery; the server answers queries before it.
    async fn recovered(&self) -> Result<()> {
        let in_recovery = "SELECT pg_is_in_recovery()::text";
        let failure = "PostgreSQL does not end its recovery";
        self.answers(in_recovery, |answer| answer == "false", failure).await
    }

    /// Asks again until the answer is the wanted one.
    async fn answers(
        &self,
        query: &str,
        is_wanted: impl Fn(&str) -> bool,
        failure: &str,
    ) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !is_wanted(&self.query_text("postgres", query).await?) {
            if Instant::now() > deadline {
                return Err(unavailable(failure));
            }
            sleep(PROBE_INTERVAL).await;
        }
        Ok(())
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let script = r#"rm -rf "$2" && cp -a "$1" "$2""#;
        let args = ["-c", script, "sh", from, to];
        // Run as the owner of the data, who then owns the copy as well.
        let copy = self.home.spawn("copy", Path::new("sh"), args, self.owner)?;
        if copy.exited_or_killed(STOP_LIMIT).await.success() {
            return Ok(());
        }
        Err(server_error("PostgreSQL's data can't be copied", &copy))
    }

    fn write_settings(&self) -> Result<()> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let lines =
            settings.iter().map(|(name, value)| format!("{name} = {}\n", quote_conf(value)));
        let path = self.home.write("factlib.conf", lines.collect::<String>())?;
        self.owner.map_or(Ok(()), |owner| owner.give(&path))
    }

    fn child(&self) -> MutexGuard<'_, Option<GuardedChild>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a value for `postgresql.conf`, where backslashes escape.
fn quote_conf(text: &str) -> String {
    quote_literal(&text.replace('\\', "\\\\"))
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::PostgresUnavailable, what)
}

fn refused(cause: tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::PostgresRefused, "PostgreSQL refused a statement").caused_by(cause)
}

fn server_error(what: &str, child: &GuardedChild) -> Error {
    unavailable(&format!("{what}; its log ends with:\n{}", child.log_tail()))
}
