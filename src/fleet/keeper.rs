//! Keeps one pipeline running: starts it, and starts it again when it has ended with an error.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_rt::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use slog::{Logger, error, info};
use tokio::sync::watch;

use super::MakePipeline;
use crate::{
    Error, ErrorKind, PipelineHandle, Result, exactly_once::PositionReaders,
    kafka::pipelined::SharedConnections, ops::Member, threads::ThreadPool,
};

/// A pipeline of the fleet.
pub(super) struct Keeper {
    stop: watch::Sender<Stop>,
    kept: Arc<Mutex<Kept>>,
    /// True once the pipeline runs, or waits for nothing but its slot.
    ready: watch::Receiver<bool>,
    /// Ends when the pipeline has stopped.
    task: JoinHandle<Result<()>>,
}

/// What the keeper has been told about the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Not,
    InOrder,
    /// In order if that takes no longer than this.
    Within(Duration),
}

/// What there is of the pipeline now.
#[derive(Default)]
struct Kept {
    /// The last one that was started, also after its end.
    pipeline: Option<Arc<PipelineHandle>>,
    /// The error that ended it, until it is started again.
    failure: Option<Error>,
}

/// What a keeper needs of its fleet.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub threads: Arc<ThreadPool>,
    pub connections: SharedConnections,
    pub position_readers: PositionReaders,
    pub retry_after: Duration,
    /// None unless the pipelines are shared with other instances; false while one of these runs this
    /// pipeline.
    pub shared: Option<watch::Receiver<bool>>,
    pub log: Logger,
}

impl Keeper {
    /// Starts the pipeline once `before` has stopped: it may read the same slot.
    pub fn start(make: MakePipeline, before: Option<Keeper>, around: Surroundings) -> Self {
        let (stop, stopping) = watch::channel(Stop::Not);
        let (is_ready, ready) = watch::channel(false);
        let kept = Arc::<Mutex<Kept>>::default();
        let task = actix_rt::spawn({
            let kept = Arc::clone(&kept);
            async move {
                if let Some(before) = before {
                    // It has logged its error.
                    let _ = before.stop().await;
                }
                keep(make, &kept, &is_ready, stopping, &around).await
            }
        });
        Keeper { stop, kept, ready, task }
    }

    /// Stops the pipeline in order.
    ///
    /// # Errors
    /// As [`PipelineHandle::shutdown`].
    pub async fn stop(self) -> Result<()> {
        self.stop.send_replace(Stop::InOrder);
        self.task.await.unwrap_or(Ok(()))
    }

    /// As [`stop`](Self::stop), but ends the pipeline after this time in any case. What is then in
    /// flight is sent again by the next one that reads the slot.
    pub async fn stop_within(self, limit: Duration) -> Result<()> {
        self.stop.send_replace(Stop::Within(limit));
        self.task.await.unwrap_or(Ok(()))
    }

    /// Waits until the pipeline runs, or waits for nothing but its slot. Ends with the keeper, too:
    /// nobody asks for a pipeline that was told to stop.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let mut ready = self.ready.clone();
        async move {
            let _ = ready.wait_for(|ready| *ready).await;
        }
    }

    /// The pipeline as the servers show it.
    pub fn member(&self, name: &str) -> Member {
        let kept = lock(&self.kept);
        Member {
            name: name.to_owned(),
            routes: kept.pipeline.as_ref().map(|pipeline| pipeline.routes()),
            failure: kept.failure.as_ref().map(Error::to_string),
        }
    }
}

async fn keep(
    make: MakePipeline,
    kept: &Mutex<Kept>,
    is_ready: &watch::Sender<bool>,
    mut stopping: watch::Receiver<Stop>,
    around: &Surroundings,
) -> Result<()> {
    let log = &around.log;
    // A keeper that is gone has been told to stop, too.
    let mut stopped = async || match stopping.wait_for(|stop| *stop != Stop::Not).await {
        Ok(stop) => *stop,
        Err(_) => Stop::InOrder,
    };
    loop {
        // Not given up halfway: what has started has to end before its slot is read again.
        let ended = match start(&make, around).await {
            Ok(pipeline) => {
                let pipeline = Arc::new(pipeline);
                *lock(kept) = Kept { pipeline: Some(Arc::clone(&pipeline)), failure: None };
                let starting = async {
                    if pipeline.ready().await.is_ok() {
                        is_ready.send_replace(true);
                    }
                    std::future::pending().await
                };
                tokio::select! {
                    ended = pipeline.wait() => ended,
                    never = starting => match never {},
                    stop = stopped() => return end(pipeline, stop, kept).await.inspect_err(|failure| {
                        error!(log, "pipeline not stopped in order"; "error" => %failure);
                    }),
                }
            }
            Err(failure) => Err(failure),
        };
        let Err(failure) = ended else {
            info!(log, "pipeline stopped");
            return Ok(());
        };
        error!(log, "pipeline failed, starting it again after a pause";
            "error" => %failure, "pause_ms" => around.retry_after.as_millis() as u64);
        lock(kept).failure = Some(failure);
        tokio::select! {
            () = sleep(around.retry_after) => {}
            _ = stopped() => return Ok(()),
        }
    }
}

async fn end(pipeline: Arc<PipelineHandle>, stop: Stop, kept: &Mutex<Kept>) -> Result<()> {
    let ended = match stop {
        Stop::Within(limit) => timeout(limit, pipeline.shutdown()).await.unwrap_or_else(|_| {
            let failure = format!("the pipeline took longer than {limit:?} to stop");
            let advice = "nothing is lost: it is sent again by the next that reads the slot";
            Err(Error::new(ErrorKind::DrainTimeout, failure).remedy(advice))
        }),
        _ => pipeline.shutdown().await,
    };
    // Its last handle ends it, and its connections.
    lock(kept).pipeline = None;
    ended
}

async fn start(make: &MakePipeline, around: &Surroundings) -> Result<PipelineHandle> {
    let Surroundings { threads, connections, position_readers, shared, log, .. } = around;
    let shared = shared.clone();
    let builder = make()?.in_fleet(threads, connections, position_readers, shared, log.clone());
    builder.start_in_background().await
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
