//! Connections to brokers that clients take turns to use.
//!
//! A client leases a connection while it has requests in flight to a broker, and nobody else uses
//! it meanwhile. So clients that rarely send need few connections together, and none waits for the
//! answers to another's requests: Kafka handles the requests of a connection one after the other,
//! and reads nothing from one while it throttles it. A batch that waits for its replicas, or a Fetch
//! that waits for records, would hold up everyone else on the connection.
//!
//! # Sharing
//! Clients share a pool if their [`Settings`] are clones. A connection is leased only to settings
//! with the same client id, limits, connector and login: each the same `Arc`.
//!
//! # Opening
//! Most clients need a connection only for a moment, and many of them at the same moment: when a fleet
//! starts, or refreshes its metadata. So a client that finds all connections to a broker in use waits
//! for [`PATIENCE`] until it opens another one, and for that long after another client has opened one.
//! If an attempt to connect fails, it fails for all who wait.
//!
//! # Closing
//! A lease that ends puts its connection back, unless a request is without an answer, the broker
//! throttles the connection, or it has ended. If it has ended because the broker went silent, the
//! idle ones to that broker are closed, too: a request on one would have to time out to show that
//! it is dead. Of the idle connections to a broker, those that nobody used for [`SPARE_IDLE`] are
//! closed, except for one, when a connection is put back.

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    connection::Connection,
    connector::Connector,
    error::{Error, Result},
    sasl::Login,
    settings::Settings,
};

/// Maximum number of attempts to connect to one broker at the same time.
const MAX_ATTEMPTS: usize = 2;

/// Time for which a client waits for a connection that is in use, until it opens another one; and time
/// until another client may open one, too. It is longer than most requests take.
const PATIENCE: Duration = Duration::from_millis(10);

/// Longest time after which a client that waits looks again if it may open a connection.
const LONGEST_PATIENCE: Duration = Duration::from_millis(100);

/// Time after which a connection that nobody used is closed, unless it is the only idle one.
const SPARE_IDLE: Duration = Duration::from_secs(10);

/// Connections to brokers. Clients whose settings hold the same pool share them.
#[derive(Default)]
pub struct ConnectionPool(Mutex<Vec<Arc<Shelf>>>);

/// The idle connections to one broker with the same settings, and the clients that wait for one.
struct Shelf {
    host: String,
    port: u16,
    client_id: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    connector: Arc<dyn Connector>,
    login: Option<Arc<dyn Login>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the time since which each is idle; the last one was used last.
    idle: Vec<(Connection, Instant)>,
    /// Number of connections in use.
    leases: usize,
    /// Number of attempts to connect that are under way.
    attempts: usize,
    /// Time at which the last attempt began.
    attempted_at: Option<Instant>,
    waiting: VecDeque<oneshot::Sender<Result<Lease>>>,
}

/// A connection that one client uses. The pool gets it back when it is dropped.
pub(crate) struct Lease {
    connection: Connection,
    place: Place,
    is_logging_in: bool,
}

/// An attempt to connect, which ends when it is dropped.
struct Attempt<'a>(&'a Place);

/// A shelf of a pool.
#[derive(Clone)]
struct Place {
    pool: Arc<ConnectionPool>,
    shelf: Arc<Shelf>,
}

impl Lease {
    /// Takes an idle connection, or opens one.
    pub async fn take(settings: &Settings, host: &str, port: u16) -> Result<Self> {
        let place = Place::of(settings, host, port);
        let (began, mut patience, mut waiting) = (Instant::now(), PATIENCE, place.wait());
        while began.elapsed() < settings.connect_timeout {
            let idle = place.shelf.state().take_idle(|_| true);
            if let Some(connection) = idle {
                return place.lease(connection).logged_in(settings).await;
            }
            if let Some(attempt) = place.try_begin(began.elapsed()) {
                return attempt.open(settings).await;
            }
            match timeout(patience, &mut waiting).await {
                Ok(Ok(lease)) => return lease?.logged_in(settings).await,
                Ok(Err(_)) => break,
                Err(_) => patience = (patience * 2).min(LONGEST_PATIENCE),
            }
        }
        let address = format!("{host}:{port}").into();
        Err(Error::TimedOut { address, request: "the connection attempt" })
    }

    /// Takes the idle connection that was used last, if there is one that need not log in again.
    pub fn take_idle(settings: &Settings, host: &str, port: u16) -> Option<Self> {
        let place = Place::of(settings, host, port);
        let idle = place.shelf.state().take_idle(|idle| !idle.is_login_due());
        Some(place.lease(idle?))
    }

    /// Closes the idle connections to the same broker.
    pub fn close_idle(&self) {
        self.place.close_idle();
    }

    /// Returns host and port of the broker.
    pub fn host_and_port(&self) -> (String, u16) {
        (self.place.shelf.host.clone(), self.place.shelf.port)
    }

    /// Logs in again if it is time to.
    async fn logged_in(mut self, settings: &Settings) -> Result<Self> {
        if self.connection.is_login_due() {
            // The connection is put back only if the login succeeds.
            self.is_logging_in = true;
            let login = self.connection.clone().log_in(settings);
            let login = timeout(settings.connect_timeout, login).await;
            self.connection = login.unwrap_or_else(|_| {
                let address = Arc::clone(&self.connection.address);
                Err(Error::TimedOut { address, request: "the login" })
            })?;
            self.is_logging_in = false;
        }
        Ok(self)
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        {
            let mut state = self.place.shelf.state();
            state.leases = state.leases.saturating_sub(1);
        }
        if self.connection.end_error().as_ref().is_some_and(is_silent) {
            self.place.close_idle();
        } else if !self.is_logging_in && self.connection.is_at_rest() {
            self.place.put_back(self.connection.clone());
        }
    }
}

impl Attempt<'_> {
    async fn open(self, settings: &Settings) -> Result<Lease> {
        let shelf = &self.0.shelf;
        match Connection::open(settings, &shelf.host, shelf.port).await {
            Ok(connection) => Ok(self.0.lease(connection)),
            Err(error) => {
                let waiting = std::mem::take(&mut shelf.state().waiting);
                for waiting in waiting {
                    let _ = waiting.send(Err(error.clone()));
                }
                Err(error)
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.0.shelf.state();
        state.attempts = state.attempts.saturating_sub(1);
    }
}

impl Place {
    fn of(settings: &Settings, host: &str, port: u16) -> Self {
        let pool = Arc::clone(&settings.connections);
        let mut shelves = pool.shelves();
        let known = shelves.iter().find(|shelf| shelf.is_for(settings, host, port));
        let shelf = known.cloned().unwrap_or_else(|| {
            let new = Arc::new(Shelf::new(settings, host, port));
            shelves.push(Arc::clone(&new));
            new
        });
        drop(shelves);
        Place { pool, shelf }
    }

    fn lease(&self, connection: Connection) -> Lease {
        self.shelf.state().leases += 1;
        Lease { connection, place: self.clone(), is_logging_in: false }
    }

    /// Begins an attempt to connect for a client that has waited for so long, if it is time for one.
    fn try_begin(&self, waited: Duration) -> Option<Attempt<'_>> {
        let mut state = self.shelf.state();
        let is_first = state.leases == 0 && state.attempts == 0;
        let is_time = waited >= PATIENCE
            && state.attempts < MAX_ATTEMPTS
            && state.attempted_at.is_none_or(|at| at.elapsed() >= PATIENCE);
        if !is_first && !is_time {
            return None;
        }
        state.attempts += 1;
        state.attempted_at = Some(Instant::now());
        Some(Attempt(self))
    }

    /// Waits for a connection that is put back, or for an attempt that fails.
    fn wait(&self) -> oneshot::Receiver<Result<Lease>> {
        let (turn, waiting) = oneshot::channel();
        self.shelf.state().waiting.push_back(turn);
        waiting
    }

    /// Gives a connection to the client that has waited longest, or keeps it.
    fn put_back(&self, connection: Connection) {
        let now = Instant::now();
        let next = {
            let mut state = self.shelf.state();
            let next = state.next_waiting();
            if next.is_none() {
                state.idle.push((connection.clone(), now));
            }
            next
        };
        match next {
            // A client that has just stopped waiting puts it back by dropping it.
            Some(next) => drop(next.send(Ok(self.lease(connection)))),
            None => self.pool.close_spare(now),
        }
    }

    fn close_idle(&self) {
        let Shelf { host, port, .. } = &*self.shelf;
        let shelves = self.pool.shelves();
        let of_broker = shelves.iter().filter(|shelf| (&shelf.host, &shelf.port) == (host, port));
        of_broker.for_each(|shelf| shelf.state().idle.clear());
    }
}

impl Shelf {
    fn new(settings: &Settings, host: &str, port: u16) -> Self {
        Shelf {
            host: host.to_owned(),
            port,
            client_id: settings.client_id.clone(),
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
            connector: Arc::clone(&settings.connector),
            login: settings.login.clone(),
            state: Mutex::default(),
        }
    }

    fn is_for(&self, settings: &Settings, host: &str, port: u16) -> bool {
        let has_same_login = match (&self.login, &settings.login) {
            (Some(login), Some(other)) => Arc::ptr_eq(login, other),
            (None, None) => true,
            _ => false,
        };
        (&*self.host, self.port, &self.client_id) == (host, port, &settings.client_id)
            && self.connect_timeout == settings.connect_timeout
            && self.request_timeout == settings.request_timeout
            && Arc::ptr_eq(&self.connector, &settings.connector)
            && has_same_login
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the idle connection that was used last, if it is `usable`.
    fn take_idle(&mut self, usable: impl FnOnce(&Connection) -> bool) -> Option<Connection> {
        self.drop_closed();
        let (last, _) = self.idle.last()?;
        usable(last).then(|| self.idle.pop())?.map(|(connection, _)| connection)
    }

    fn drop_closed(&mut self) {
        self.idle.retain(|(connection, _)| !connection.is_closed());
    }

    fn next_waiting(&mut self) -> Option<oneshot::Sender<Result<Lease>>> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|waiting| !waiting.is_closed())
    }
}

impl ConnectionPool {
    /// Closes the idle connections that nobody needs any more.
    fn close_spare(&self, now: Instant) {
        self.shelves().retain(|shelf| {
            let mut state = shelf.state();
            state.drop_closed();
            let others = state.idle.len().saturating_sub(1);
            let is_spare = |(_, since): &&(Connection, Instant)| now - *since >= SPARE_IDLE;
            let spare = state.idle.iter().take(others).take_while(is_spare).count();
            state.idle.drain(..spare);
            // Those who hold, open or wait for a connection hold the shelf, too.
            !state.idle.is_empty() || Arc::strong_count(shelf) > 1
        });
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Arc<Shelf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").finish_non_exhaustive()
    }
}

/// Returns true if the connection ended because nothing came from the broker any more.
fn is_silent(error: &Error) -> bool {
    match error {
        Error::TimedOut { .. } => true,
        Error::Connection { source, .. } => source.kind() == std::io::ErrorKind::TimedOut,
        _ => false,
    }
}
