//! The handle of a running fleet: adds, replaces and removes pipelines, and stops them all.

use std::{fmt, sync::Arc};

use futures_util::future::join_all;
use slog::Logger;

use super::{
    MakePipeline,
    group::Sharing,
    keeper::{Keeper, Surroundings},
    keepers::Keepers,
};
use crate::{
    PipelineBuilder, Result,
    config::{FleetConfig, HttpConfig},
    exactly_once::PositionReaders,
    kafka::{KafkaSettings, pipelined::SharedConnections},
    ops::{FleetRoutes, FleetState, GroupStatus, MemberStatus, Servers},
    threads::ThreadPool,
};

/// A running fleet.
///
/// Dropping it stops its pipelines in the background; [`shutdown`](Self::shutdown) waits for that.
pub struct FleetHandle {
    keepers: Keepers,
    /// None: this fleet runs all of its pipelines.
    sharing: Option<Sharing>,
    ops: FleetState,
    _servers: Servers,
}

impl FleetHandle {
    pub(super) fn new(
        http: &HttpConfig,
        config: &FleetConfig,
        kafka: &KafkaSettings,
        threads: ThreadPool,
        log: Logger,
    ) -> Result<Self> {
        let keepers = Keepers::new(Surroundings {
            threads: Arc::new(threads),
            connections: SharedConnections::default(),
            position_readers: PositionReaders::default(),
            retry_after: config.retry_after,
            shared: None,
            log: log.clone(),
        });
        let sharing = match &config.group {
            Some(group) => Some(Sharing::start(group, config, kafka, keepers.clone(), log)?),
            None => None,
        };
        let group = sharing.as_ref().map(Sharing::watch);
        let ops = FleetState::new(http, config.unhealthy_when, keepers.members(), group);
        let servers = ops.serve(http)?;
        Ok(FleetHandle { keepers, sharing, ops, _servers: servers })
    }

    /// Adds a pipeline, or replaces the one of this name, which is stopped in order first. Call it
    /// in the actix `System` of the fleet. With `fleet.group`, the pipeline runs here only while it
    /// is this instance's.
    pub fn set(
        &self,
        name: impl Into<String>,
        make: impl Fn() -> Result<PipelineBuilder> + Send + Sync + 'static,
    ) {
        self.put(name.into(), Arc::new(make));
    }

    pub(super) fn put(&self, name: String, make: MakePipeline) {
        match &self.sharing {
            Some(sharing) => sharing.set(name, make),
            // It starts by itself.
            None => drop(self.keepers.start(name, make, None)),
        }
    }

    /// Stops a pipeline in order and removes it. Does nothing if there is none of this name.
    ///
    /// # Errors
    /// As [`PipelineHandle::shutdown`](crate::PipelineHandle::shutdown).
    pub async fn remove(&self, name: &str) -> Result<()> {
        if let Some(sharing) = &self.sharing {
            return sharing.remove(name).await;
        }
        match self.keepers.take(name) {
            Some(keeper) => keeper.stop().await,
            None => Ok(()),
        }
    }

    /// As [`remove`](Self::remove), without waiting for the end.
    pub fn remove_in_background(&self, name: &str) {
        match &self.sharing {
            // Sent before it waits, which nobody does.
            Some(sharing) => drop(sharing.remove(name)),
            // Dropped, it stops its pipeline.
            None => drop(self.keepers.take(name)),
        }
    }

    /// The status of each pipeline that runs here, those in trouble first.
    pub fn status(&self) -> Vec<MemberStatus> {
        self.ops.statuses()
    }

    /// This instance's place in the group; none without `fleet.group`.
    pub fn group(&self) -> Option<GroupStatus> {
        self.ops.group()
    }

    /// Routes of health, readiness, status, metrics and the list of pipelines, and those of each
    /// pipeline, to mount in an application's own server.
    pub fn routes(&self) -> FleetRoutes {
        self.ops.routes()
    }

    /// Stops all pipelines in order, at the same time. With `fleet.group`, other instances take
    /// them over as they end.
    ///
    /// # Errors
    /// The first error of a pipeline that did not stop in order.
    pub async fn shutdown(&self) -> Result<()> {
        if let Some(sharing) = &self.sharing {
            return sharing.leave().await;
        }
        let keepers = self.keepers.take_all();
        join_all(keepers.into_values().map(Keeper::stop)).await.into_iter().collect()
    }
}

impl Drop for FleetHandle {
    fn drop(&mut self) {
        // The servers and the application may still hold the list. Where pipelines are shared, the
        // end of the commands stops them.
        if self.sharing.is_none() {
            drop(self.keepers.take_all());
        }
    }
}

impl fmt::Debug for FleetHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}
