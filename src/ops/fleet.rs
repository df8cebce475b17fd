//! Serves several pipelines: health and metrics of all, a list with a page, and the routes of each
//! below `/pipelines/{name}`.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, Scope,
    http::StatusCode,
    web::{self, Data, ServiceConfig, get},
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::{
    OpsState, Routes,
    asked::{FindPipeline, PIPELINE},
    group::GroupStatus,
    health::Health,
    metrics, page, routes,
    servers::{Ports, Servers},
};
use crate::{
    Result,
    config::{HttpConfig, UnhealthyWhen},
    status::{Lag, PipelineState},
};

/// A pipeline of a fleet, as the servers see it.
pub(crate) struct Member {
    pub name: String,
    /// None until it has begun to start.
    pub routes: Option<Routes>,
    /// The error that ended it, until it is started again.
    pub failure: Option<String>,
}

/// Lists the pipelines, in the order of their names.
pub(crate) type Members = dyn Fn() -> Vec<Member> + Send + Sync;

/// A pipeline of a fleet at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Name.
    pub name: String,
    /// State; [`Stopped`](PipelineState::Stopped) between a failure and the next start.
    #[serde(flatten)]
    pub state: PipelineState,
    /// The reason why it is unhealthy, if it is.
    pub problem: Option<String>,
    /// Records delivered per second, over the last ten seconds.
    pub events_per_second: f64,
    /// Records delivered since it was last started.
    pub events: u64,
    /// Events that became dead letters since it was last started.
    pub dead_letters: u64,
    /// Lag of delivery.
    pub lag: Lag,
    /// WAL that the server kept for the slot at the last query, in bytes.
    pub retained_wal_bytes: u64,
}

/// Everything that the routes of a fleet answer from.
#[derive(Clone)]
pub(crate) struct FleetState {
    members: Arc<Members>,
    /// None if the pipelines are not shared.
    group: Option<watch::Receiver<GroupStatus>>,
    unhealthy_when: UnhealthyWhen,
    stuck_after: Duration,
    page: bool,
}

/// `/healthz`, `/readyz`, `/metrics`, `/status.json` and the list of a fleet, and the routes of each
/// of its pipelines below `/pipelines/{name}`.
#[derive(Clone)]
pub struct FleetRoutes(FleetState);

impl std::fmt::Debug for FleetRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetRoutes")
    }
}

impl FleetRoutes {
    /// Serves them all below `path`, as [`Routes::scope`] does for one pipeline.
    pub fn scope(&self, path: &str) -> Scope {
        let state = self.0.clone();
        web::scope(path).configure(|app| state.configure(app, Ports::Both))
    }
}

impl FleetState {
    pub fn new(
        http: &HttpConfig,
        unhealthy_when: UnhealthyWhen,
        members: Arc<Members>,
        group: Option<watch::Receiver<GroupStatus>>,
    ) -> Self {
        let (stuck_after, page) = (http.stuck_after, http.page);
        FleetState { members, group, unhealthy_when, stuck_after, page }
    }

    /// This instance's place in the group, if the pipelines are shared.
    pub fn group(&self) -> Option<GroupStatus> {
        self.group.as_ref().map(|group| group.borrow().clone())
    }

    /// Listens on the ports that are set, if any.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a port that can't be bound.
    pub fn serve(&self, http: &HttpConfig) -> Result<Servers> {
        let state = self.clone();
        Servers::start(http, move |app, ports| state.configure(app, ports))
    }

    pub fn routes(&self) -> FleetRoutes {
        FleetRoutes(self.clone())
    }

    fn configure(&self, app: &mut ServiceConfig, ports: Ports) {
        app.app_data(Data::new(self.clone()));
        if ports.health() {
            app.route("/healthz", get().to(healthz)).route("/readyz", get().to(readyz));
        }
        if !ports.metrics() {
            return;
        }
        app.route("/metrics", get().to(prometheus)).route("/status.json", get().to(status));
        let members = Arc::clone(&self.members);
        let find: Arc<FindPipeline> = Arc::new(move |name: &str| {
            let member = members().into_iter().find(|member| member.name == name)?;
            Some(member.routes?.0)
        });
        let of_one = web::scope(&format!("/pipelines/{{{PIPELINE}}}"))
            .app_data(Data::from(find))
            .configure(routes::all);
        if self.page {
            app.service(of_one.configure(page::routes)).configure(page::fleet_routes);
        } else {
            app.service(of_one);
        }
    }

    /// The status of each pipeline: those in trouble first, then by the WAL that is kept for it.
    pub fn statuses(&self) -> Vec<MemberStatus> {
        let mut all: Vec<_> = (self.members)().iter().map(Member::status).collect();
        all.sort_by_key(|one| (one.problem.is_none(), Reverse(one.retained_wal_bytes)));
        all
    }

    /// The reason why the fleet fails, by the problems of its pipelines.
    fn failure(&self, problem: impl Fn(&Member) -> Option<String>) -> Option<String> {
        let members = (self.members)();
        let problems: Vec<_> = members
            .iter()
            .filter_map(|member| Some(format!("{}: {}", member.name, problem(member)?)))
            .collect();
        let fails = match self.unhealthy_when {
            UnhealthyWhen::All => problems.len() == members.len(),
            UnhealthyWhen::Any => true,
        };
        (fails && !problems.is_empty()).then(|| {
            format!("{} of {} pipelines: {}", problems.len(), members.len(), problems.join("; "))
        })
    }
}

impl Member {
    fn state(&self) -> Option<&OpsState> {
        self.routes.as_ref().map(|routes| &**routes.0)
    }

    fn problem(&self) -> Option<String> {
        let unhealthy = |state: &OpsState| match state.check_health().1 {
            Health::Healthy => None,
            Health::Unhealthy(reason) => Some(reason),
        };
        self.failure.clone().or_else(|| self.state().and_then(unhealthy))
    }

    fn is_not_ready(&self) -> Option<String> {
        let starting = || Some("starting".to_owned());
        self.failure.clone().or_else(|| self.state().map_or_else(starting, routes::not_ready))
    }

    fn status(&self) -> MemberStatus {
        let (name, problem) = (self.name.clone(), self.problem());
        let status = self.state().map(|state| state.status.snapshot());
        let stopped = self.failure.is_some().then_some(PipelineState::Stopped);
        MemberStatus {
            name,
            problem,
            state: stopped
                .or_else(|| status.as_ref().map(|status| status.state.clone()))
                .unwrap_or_default(),
            events_per_second: status.as_ref().map_or(0.0, |status| status.events_per_second),
            events: status.as_ref().map_or(0, |status| status.events),
            dead_letters: status.as_ref().map_or(0, |status| status.dead_letters),
            lag: status.as_ref().map(|status| status.lag).unwrap_or_default(),
            retained_wal_bytes: status.as_ref().map_or(0, |status| status.retained_wal_bytes),
        }
    }
}

async fn healthz(state: Data<FleetState>) -> HttpResponse {
    let lost = state.group().and_then(|group| group.not_member_for(state.stuck_after));
    routes::answer(lost.or_else(|| state.failure(Member::problem)))
}

async fn readyz(state: Data<FleetState>) -> HttpResponse {
    let joining = state.group().and_then(|group| group.not_member());
    routes::answer(joining.or_else(|| state.failure(Member::is_not_ready)))
}

async fn prometheus(state: Data<FleetState>, request: HttpRequest) -> HttpResponse {
    let members = (state.members)();
    let up = members.iter().map(|member| (member.name.clone(), member.failure.is_none()));
    let up = up.collect();
    let pipelines = members.iter().filter_map(|member| {
        Some((Some(member.name.clone()), Arc::clone(&member.state()?.status)))
    });
    let scrape = metrics::Scrape::of_fleet(pipelines.collect(), up, state.group());
    routes::metrics_text(scrape, &request)
}

async fn status(state: Data<FleetState>) -> HttpResponse {
    let mut status = json!({ "pipelines": state.statuses() });
    if let Some(group) = state.group() {
        status["group"] = json!(group);
    }
    routes::json_body(StatusCode::OK, &status)
}
