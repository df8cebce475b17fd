//! Serves health, readiness and metrics over HTTP, and a status page.
//!
//! `http.health_port` answers `/healthz` and `/readyz`, `http.metrics_port`
//! `/metrics`, `/status.json` and, unless `http.page` is false, the page at `/`. Every request reads
//! [`Status`], so the actors do nothing for it and there is no global state. With the feature
//! `metrics`, the application's recorder gets the same metrics (`facade`).
//!
//! # Life cycle
//! The servers start before the pipeline and end with it, so that probes are answered while it waits
//! for PostgreSQL and Kafka.

mod asked;
mod blocked;
mod definitions;
#[cfg(feature = "metrics")]
mod facade;
mod fleet;
mod group;
mod health;
mod history;
mod metrics;
mod page;
mod routes;
mod servers;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix::Recipient;
use actix_rt::task::JoinHandle;
use actix_web::{
    Scope,
    web::{self, Data, ServiceConfig},
};
use slog::Logger;
use tokio::sync::{Semaphore, watch};

#[cfg(feature = "metrics")]
pub(crate) use self::facade::Facade;
pub use self::{
    fleet::{FleetRoutes, MemberStatus},
    group::GroupStatus,
};
pub(crate) use self::{
    fleet::{FleetState, Member, Members},
    servers::Servers,
};
use self::{
    health::{Health, Progress},
    history::History,
    page::{Controls, Relay, Search},
    servers::Ports,
};
use crate::{
    Result,
    config::Config,
    messages::PauseTopic,
    status::{PipelineStatus, Status},
};

/// Number of checks in the time that progress may take.
const CHECKS_PER_LIMIT: u32 = 10;
/// Longest time between two checks: short enough for any limit, and no load.
const LONGEST_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two samples of the history.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of open pages: each is sent a few kilobytes per second.
const MAX_OPEN_PAGES: usize = 64;

/// The HTTP servers of one pipeline; they end when this is dropped.
pub(crate) struct Ops {
    state: Data<OpsState>,
    servers: Option<Servers>,
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
pub struct Routes(Data<OpsState>);

impl Routes {
    /// Serves them all below `path`, with the page at `path` itself unless `http.page` is false. The
    /// application decides who may ask: only the page's controls require `http.token`.
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

/// Everything that the routes answer from.
struct OpsState {
    status: Arc<Status>,
    progress: Mutex<Progress>,
    page: bool,
    relay: Relay,
    controls: Controls,
    search: Search,
    history: Mutex<History>,
    /// Notified after each sample.
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
    /// [`ErrorKind::Config`] for a port that can't be bound, with the reason.
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
        let state = Data::new(OpsState {
            status: Arc::clone(status),
            progress: Mutex::new(progress),
            page: http.page,
            relay: Relay {
                version: env!("CARGO_PKG_VERSION"),
                slot: config.postgres.slot.clone(),
                database: config.postgres.connect_info()?.describe(),
                brokers: if kafka { config.kafka.brokers.clone() } else { Vec::new() },
                kafka,
            },
            controls: Controls::new(config, kafka, log)?,
            search: Search::new(Arc::clone(config), kafka, log),
            history: Mutex::default(),
            samples: watch::Sender::default(),
            page_slots: Arc::new(Semaphore::new(MAX_OPEN_PAGES)),
            #[cfg(feature = "metrics")]
            facade,
        });
        let tasks = [
            actix_rt::spawn(watch(state.clone(), http.stuck_after / CHECKS_PER_LIMIT)),
            actix_rt::spawn(sample(state.clone())),
        ];
        let mut ops = Ops { state: state.clone(), servers: None, tasks };
        ops.servers = Some(Servers::start(http, move |app, ports| serve(&state, app, ports))?);
        Ok(ops)
    }

    /// Connects the page's controls with the supervisor.
    pub fn set_control(&self, pauses: Recipient<PauseTopic>) {
        self.state.controls.set_control(pauses);
    }

    /// The answer of `/healthz`.
    pub fn health(&self) -> Result<(), String> {
        match self.state.check_health().1 {
            Health::Healthy => Ok(()),
            Health::Unhealthy(reason) => Err(reason),
        }
    }

    /// The routes, for the application's own server.
    pub fn routes(&self) -> Routes {
        Routes(self.state.clone())
    }
}

impl Drop for Ops {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        #[cfg(feature = "metrics")]
        self.state.facade.publish(&self.state.status.snapshot());
    }
}

impl OpsState {
    /// Takes a snapshot and judges it.
    fn check_health(&self) -> (PipelineStatus, Health) {
        let status = self.status.snapshot();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let health = progress.observe(&status, Instant::now());
        (status, health)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the routes of one pipeline.
fn serve(state: &Data<OpsState>, app: &mut ServiceConfig, ports: Ports) {
    app.app_data(state.clone());
    if ports.health() {
        app.configure(routes::health);
    }
    if ports.metrics() {
        app.configure(routes::metrics);
        if state.page {
            app.configure(page::routes);
        }
    }
}

/// Checks health at an interval, because something may move or rest between two probes.
async fn watch(state: Data<OpsState>, every: Duration) {
    let every = every.clamp(Duration::from_millis(1), LONGEST_CHECK_INTERVAL);
    loop {
        state.check_health();
        state.status.sample();
        #[cfg(feature = "metrics")]
        state.facade.publish(&state.status.snapshot());
        actix_rt::time::sleep(every).await;
    }
}

/// Takes samples for the history.
async fn sample(state: Data<OpsState>) {
    loop {
        state.history().take(&state.status.snapshot());
        state.samples.send_replace(());
        actix_rt::time::sleep(SAMPLE_INTERVAL).await;
    }
}
