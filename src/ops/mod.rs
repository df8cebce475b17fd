//! Health, readiness and metrics over HTTP, for probes and for Prometheus, and a page
//! for people.
//!
//! `http.health_port` answers `/healthz` and `/readyz`, `http.metrics_port`
//! `/metrics`, `/status.json` and, unless `http.page` is false, the page at `/`. All of it is
//! read from [`Status`] when somebody asks, so that the actors do nothing for it and keep no
//! global state. With the feature `metrics`, a recorder of the application's gets the same
//! metrics (`facade`).
//!
//! # Life
//! As long as the pipeline, starting before it, so that a probe gets its answer
//! while servers are waited for. One worker thread a port.

mod blocked;
mod definitions;
#[cfg(feature = "metrics")]
mod facade;
mod health;
mod history;
mod metrics;
mod page;
mod routes;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix::Recipient;
use actix_rt::task::JoinHandle;
use actix_web::{
    App, HttpServer, Scope,
    dev::ServerHandle,
    middleware::{Condition, from_fn},
    web::{self, Data, ServiceConfig},
};
use slog::Logger;
use tokio::sync::{Semaphore, watch};

#[cfg(feature = "metrics")]
pub(crate) use self::facade::Facade;
use self::{
    health::{Health, Progress},
    history::History,
    page::{Controls, Relay, names::local_only},
};
use crate::{
    Error, ErrorKind, Result,
    config::Config,
    messages::PauseTopic,
    status::{PipelineStatus, Status},
};

/// Number of checks in the time that progress may take.
const CHECKS_PER_LIMIT: u32 = 10;
/// Often enough for any limit, and no load.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Between two samples of the history.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Pages that may be open at a time: each is sent some kilobytes a second.
const PAGES: usize = 64;

/// The servers of one pipeline; they end with it.
pub(crate) struct Ops {
    watched: Data<Watched>,
    servers: Vec<ServerHandle>,
    tasks: [JoinHandle<()>; 2],
}

/// `/healthz`, `/readyz`, `/metrics`, `/status.json` and the status page of one pipeline.
///
/// ```no_run
/// # async fn example(pipeline: &factlib::PipelineHandle) -> std::io::Result<()> {
/// use actix_web::{App, HttpServer};
///
/// let routes = pipeline.routes();
/// HttpServer::new(move || App::new().service(routes.scope("/relay")))
///     .bind(("127.0.0.1", 8080))?
///     .run()
///     .await
/// # }
/// ```
#[derive(Clone)]
pub struct Routes(Data<Watched>);

impl Routes {
    /// All of them under a path of the application's choice; the page is at its end, unless
    /// `http.page` is false. Who may ask is for the application to say: only the page's controls
    /// ask for `http.token`.
    pub fn scope(&self, path: &str) -> Scope {
        let scope = web::scope(path).app_data(self.0.clone()).configure(routes::all);
        if self.0.page { scope.configure(page::routes) } else { scope }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Routes")
    }
}

/// What the routes answer from.
struct Watched {
    status: Arc<Status>,
    progress: Mutex<Progress>,
    page: bool,
    relay: Relay,
    controls: Controls,
    history: Mutex<History>,
    /// Told after each sample.
    samples: watch::Sender<()>,
    /// One permit for each status page that may be open.
    page_slots: Arc<Semaphore>,
    #[cfg(feature = "metrics")]
    facade: Facade,
}

impl Ops {
    /// Listens on the ports that are set, if any.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: which port can't be had, and why.
    pub fn start(
        config: &Arc<Config>,
        kafka: bool,
        status: &Arc<Status>,
        log: &Logger,
        #[cfg(feature = "metrics")] mut facade: Facade,
    ) -> Result<Self> {
        let http = &config.http;
        let progress = Progress::new(http.stuck_after, config.checkpoint.idle_interval);
        #[cfg(feature = "metrics")]
        facade.follow(&config.postgres.slot, status);
        let watched = Data::new(Watched {
            status: Arc::clone(status),
            progress: Mutex::new(progress),
            page: http.page,
            relay: Relay {
                version: env!("CARGO_PKG_VERSION"),
                slot: config.postgres.slot.clone(),
                kafka,
            },
            controls: Controls::new(config, kafka, log)?,
            history: Mutex::default(),
            samples: watch::Sender::default(),
            page_slots: Arc::new(Semaphore::new(PAGES)),
            #[cfg(feature = "metrics")]
            facade,
        });
        let tasks = [
            actix_rt::spawn(watch(watched.clone(), http.stuck_after / CHECKS_PER_LIMIT)),
            actix_rt::spawn(sample(watched.clone())),
        ];
        let mut ops = Ops { watched: watched.clone(), servers: Vec::new(), tasks };
        let (health, metrics) = (http.health_port, http.metrics_port);
        if let Some(port) = health {
            let routes = if metrics == health { routes::all } else { routes::health };
            ops.listen("http.health_port", config, port, routes)?;
        }
        if let Some(port) = metrics.filter(|_| metrics != health) {
            ops.listen("http.metrics_port", config, port, routes::metrics)?;
        }
        Ok(ops)
    }

    /// Connects the page's controls with the supervisor.
    pub fn set_control(&self, pauses: Recipient<PauseTopic>) {
        self.watched.controls.set_control(pauses);
    }

    /// The answer of `/healthz`.
    pub fn health(&self) -> Result<(), String> {
        match self.watched.judge().1 {
            Health::Good => Ok(()),
            Health::Bad(reason) => Err(reason),
        }
    }

    /// For a server of the application's.
    pub fn routes(&self) -> Routes {
        Routes(self.watched.clone())
    }

    fn listen(
        &mut self,
        setting: &str,
        config: &Config,
        port: u16,
        routes: fn(&mut ServiceConfig),
    ) -> Result<()> {
        let watched = self.watched.clone();
        let address = config.http.address;
        let page = watched.page && config.http.metrics_port == Some(port);
        let app = move || {
            let app = App::new()
                .app_data(watched.clone())
                .wrap(Condition::new(address.is_loopback(), from_fn(local_only)))
                .configure(routes);
            if page { app.configure(page::routes) } else { app }
        };
        let server = HttpServer::new(app)
            .workers(1)
            .disable_signals()
            .bind((address, port))
            .map_err(|error| unavailable(setting, &format!("{address}:{port}"), error))?
            .run();
        self.servers.push(server.handle());
        actix_rt::spawn(server);
        Ok(())
    }
}

impl Drop for Ops {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        #[cfg(feature = "metrics")]
        self.watched.facade.publish(&self.watched.status.snapshot());
        for server in &self.servers {
            // The order is given here; what is returned only waits for its end.
            drop(server.stop(false));
        }
    }
}

impl Watched {
    /// The status, and what it says about progress.
    fn judge(&self) -> (PipelineStatus, Health) {
        let status = self.status.snapshot();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let health = progress.observe(&status, Instant::now());
        (status, health)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again: between two probes, something may move or rest.
async fn watch(watched: Data<Watched>, every: Duration) {
    let every = every.clamp(Duration::from_millis(1), LONGEST_LOOK);
    loop {
        watched.judge();
        watched.status.sample();
        #[cfg(feature = "metrics")]
        watched.facade.publish(&watched.status.snapshot());
        actix_rt::time::sleep(every).await;
    }
}

/// Takes the history's samples.
async fn sample(watched: Data<Watched>) {
    loop {
        watched.history().take(&watched.status.snapshot());
        watched.samples.send_replace(());
        actix_rt::time::sleep(SAMPLE_INTERVAL).await;
    }
}

fn unavailable(setting: &str, address: &str, error: io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!("set {setting} to a port that is free"),
        io::ErrorKind::PermissionDenied => format!("set {setting} to a port above 1023"),
        _ => "set http.address to an address of this machine".into(),
    };
    let what = format!("cannot listen on {address} for {setting}");
    Error::new(ErrorKind::Config, what).caused_by(error).remedy(remedy)
}
