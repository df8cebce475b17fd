//! The handle of a running pipeline: status, pausing topics, shutdown.

use std::{collections::HashSet, fmt, sync::Arc};

use actix::Addr;
use actix_rt::{Arbiter, System};
use tokio::sync::watch;

use crate::{
    Error, ErrorKind, Result,
    actors::{PipelineOutcome, Supervisor},
    messages::{PauseTopic, Shutdown, Stop},
    ops::{Ops, Routes},
    startup::SlotClaim,
    status::{PipelineState, PipelineStatus, Status},
};

/// A running pipeline.
///
/// Dropping it ends the pipeline at once, without waiting for events in flight, which are sent
/// again at the next start. Call [`shutdown`](Self::shutdown) to end it in order.
pub struct PipelineHandle {
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) running: watch::Receiver<bool>,
    /// True once it waited for nothing but its slot.
    pub(super) ready: watch::Receiver<bool>,
    pub(super) ended: watch::Receiver<PipelineOutcome>,
    pub(super) status: Arc<Status>,
    /// Topics and handlers that can be paused before anything is sent to them.
    pub(super) known_topics: HashSet<Arc<str>>,
    pub(super) claim: SlotClaim,
    /// The actix system on the pipeline's own thread, if it has one.
    pub(super) system: Option<System>,
    pub(super) ops: Ops,
    pub(super) _arbiters: OwnThreads,
}

/// Threads of the pipeline's own, which end when this is dropped.
#[derive(Default)]
pub(super) struct OwnThreads(pub Vec<Arbiter>);

impl Drop for OwnThreads {
    fn drop(&mut self) {
        for arbiter in &self.0 {
            arbiter.stop();
        }
    }
}

impl PipelineHandle {
    /// Stops reading, waits for events in flight, then saves and confirms the position.
    ///
    /// # Errors
    /// [`ErrorKind::DrainTimeout`] if that takes longer than `pipeline.drain_timeout`, which loses
    /// nothing; or the error that the pipeline had ended with before.
    pub async fn shutdown(&self) -> Result<()> {
        self.supervisor.do_send(Shutdown);
        self.wait().await
    }

    /// Waits until the pipeline reads for the first time; returns at once if it has read. A
    /// pipeline that stands by reads once the other one has ended.
    ///
    /// # Errors
    /// The error that the pipeline ended with before it read.
    pub async fn running(&self) -> Result<()> {
        let mut running = self.running.clone();
        tokio::select! {
            biased;
            Ok(_) = running.wait_for(|running| *running) => Ok(()),
            ended = self.wait() => {
                ended?;
                let failure = "the pipeline was stopped before it read anything";
                Err(Error::new(ErrorKind::ActorFailed, failure))
            }
        }
    }

    /// Waits until the pipeline has ended for any reason.
    ///
    /// # Errors
    /// The error that it ended with, unless it was shut down.
    pub async fn wait(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(error) => {
                let failure = "the supervisor ended without an outcome";
                Err(Error::new(ErrorKind::ActorFailed, failure).caused_by(error))
            }
        }
    }

    /// The current status.
    pub fn status(&self) -> PipelineStatus {
        self.status.snapshot()
    }

    /// The answer of `/healthz`, for a server that can't mount the [routes](Self::routes).
    ///
    /// # Errors
    /// The reason why the pipeline is unhealthy, in one sentence.
    pub fn health(&self) -> Result<(), String> {
        self.ops.health()
    }

    /// The pipeline's state and every change of it, until the pipeline has stopped.
    ///
    /// ```no_run
    /// # async fn example(pipeline: &factlib::PipelineHandle) {
    /// let mut states = pipeline.subscribe();
    /// while states.changed().await.is_ok() {
    ///     println!("{:?}", *states.borrow_and_update());
    /// }
    /// # }
    /// ```
    pub fn subscribe(&self) -> watch::Receiver<PipelineState> {
        self.status.subscribe()
    }

    /// Pauses a topic, or the handler `handler:{aggregate_type}`, until it is
    /// [resumed](Self::resume_topic). Records already sent may still arrive. Waiting events keep
    /// their bytes of `pipeline.window`: once that is full, nothing is read for other topics
    /// either, and a [`shutdown`](Self::shutdown) runs into its timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a topic that has had no events since the start;
    /// [`PipelineBuilder::pause_topic`](crate::PipelineBuilder::pause_topic) takes any topic.
    /// [`ErrorKind::ActorFailed`] if the pipeline has ended.
    pub fn pause_topic(&self, topic: impl Into<Arc<str>>) -> Result<()> {
        self.set_paused(topic.into(), true)
    }

    /// Resumes a paused topic, in order.
    ///
    /// # Errors
    /// As [`pause_topic`](Self::pause_topic).
    pub fn resume_topic(&self, topic: impl Into<Arc<str>>) -> Result<()> {
        self.set_paused(topic.into(), false)
    }

    fn set_paused(&self, topic: Arc<str>, paused: bool) -> Result<()> {
        if self.ended.borrow().is_some() {
            let failure = "the pipeline has ended, and sends nothing to any topic";
            return Err(Error::new(ErrorKind::ActorFailed, failure));
        }
        let topics = self.status.snapshot().topics;
        if !self.known_topics.contains(&topic) && !topics.contains_key(&*topic) {
            let topics = topics.keys().map(|topic| &**topic);
            let mut known: Vec<&str> = self.known_topics.iter().map(|topic| &**topic).collect();
            known.extend(topics);
            known.sort_unstable();
            known.dedup();
            let failure = format!("nothing has gone to a topic {topic:?} since the start");
            let remedy = format!("known are {}", known.join(", "));
            return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
        }
        self.supervisor.do_send(PauseTopic { topic, paused });
        Ok(())
    }

    /// Routes of health, readiness, status, metrics and the status page, to mount in an
    /// application's own server.
    pub fn routes(&self) -> Routes {
        self.ops.routes()
    }

    /// Waits until the pipeline reads for the first time, stands by or has ended.
    pub(super) async fn started(&self) -> Result<()> {
        let mut states = self.status.subscribe();
        let stands_by = |state: &PipelineState| matches!(state, PipelineState::StandingBy { .. });
        tokio::select! {
            biased;
            result = self.running() => result,
            Ok(_) = states.wait_for(stands_by) => Ok(()),
        }
    }

    /// Waits until the pipeline reads for the first time, waits for nothing but its slot, or has ended.
    pub(crate) async fn ready(&self) -> Result<()> {
        let mut ready = self.ready.clone();
        tokio::select! {
            biased;
            result = self.running() => result,
            Ok(_) = ready.wait_for(|ready| *ready) => Ok(()),
        }
    }
}

impl Drop for PipelineHandle {
    fn drop(&mut self) {
        self.supervisor.do_send(Stop);
        self.claim.release();
        if let Some(system) = &self.system {
            system.stop();
        }
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}
