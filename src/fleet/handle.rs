//! The handle of a running fleet: adds, replaces and removes pipelines, and stops them all.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use slog::{Logger, o};

use super::{
    MakePipeline,
    keeper::{Keeper, Surroundings},
};
use crate::{
    PipelineBuilder, Result,
    config::{FleetConfig, HttpConfig},
    kafka::pipelined::SharedConnections,
    ops::{FleetRoutes, FleetState, MemberStatus, Members, Servers},
    threads::ThreadPool,
};

type Keepers = Arc<Mutex<BTreeMap<String, Keeper>>>;

/// A running fleet.
///
/// Dropping it stops its pipelines in the background; [`shutdown`](Self::shutdown) waits for that.
pub struct FleetHandle {
    keepers: Keepers,
    around: Surroundings,
    ops: FleetState,
    _servers: Servers,
}

impl FleetHandle {
    pub(super) fn new(
        http: &HttpConfig,
        config: &FleetConfig,
        threads: ThreadPool,
        log: Logger,
    ) -> Result<Self> {
        let keepers = Keepers::default();
        let members: Arc<Members> = {
            let keepers = Arc::clone(&keepers);
            Arc::new(move || lock(&keepers).iter().map(|(name, one)| one.member(name)).collect())
        };
        let ops = FleetState::new(http, config.unhealthy_when, members);
        let servers = ops.serve(http)?;
        let around = Surroundings {
            threads: Arc::new(threads),
            connections: SharedConnections::default(),
            retry_after: config.retry_after,
            log,
        };
        Ok(FleetHandle { keepers, around, ops, _servers: servers })
    }

    /// Adds a pipeline, or replaces the one of this name, which is stopped in order first. Call it
    /// in the actix `System` of the fleet.
    pub fn set(
        &self,
        name: impl Into<String>,
        make: impl Fn() -> Result<PipelineBuilder> + Send + Sync + 'static,
    ) {
        self.put(name.into(), Arc::new(make));
    }

    pub(super) fn put(&self, name: String, make: MakePipeline) {
        let mut keepers = lock(&self.keepers);
        let log = self.around.log.new(o!("pipeline" => name.clone()));
        let around = Surroundings { log, ..self.around.clone() };
        let keeper = Keeper::start(make, keepers.remove(&name), around);
        keepers.insert(name, keeper);
    }

    /// Stops a pipeline in order and removes it. Does nothing if there is none of this name.
    ///
    /// # Errors
    /// As [`PipelineHandle::shutdown`](crate::PipelineHandle::shutdown).
    pub async fn remove(&self, name: &str) -> Result<()> {
        let removed = lock(&self.keepers).remove(name);
        match removed {
            Some(keeper) => keeper.stop().await,
            None => Ok(()),
        }
    }

    /// As [`remove`](Self::remove), without waiting for the end.
    pub fn remove_in_background(&self, name: &str) {
        // Dropped, it stops its pipeline.
        drop(lock(&self.keepers).remove(name));
    }

    /// The status of each pipeline, those in trouble first.
    pub fn status(&self) -> Vec<MemberStatus> {
        self.ops.statuses()
    }

    /// Routes of health, readiness, status, metrics and the list of pipelines, and those of each
    /// pipeline, to mount in an application's own server.
    pub fn routes(&self) -> FleetRoutes {
        self.ops.routes()
    }

    /// Stops all pipelines in order, at the same time.
    ///
    /// # Errors
    /// The first error of a pipeline that did not stop in order.
    pub async fn shutdown(&self) -> Result<()> {
        let keepers = std::mem::take(&mut *lock(&self.keepers));
        join_all(keepers.into_values().map(Keeper::stop)).await.into_iter().collect()
    }
}

impl Drop for FleetHandle {
    fn drop(&mut self) {
        // The servers and the application may still hold the list.
        lock(&self.keepers).clear();
    }
}

impl fmt::Debug for FleetHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn lock(keepers: &Keepers) -> MutexGuard<'_, BTreeMap<String, Keeper>> {
    keepers.lock().unwrap_or_else(PoisonError::into_inner)
}
