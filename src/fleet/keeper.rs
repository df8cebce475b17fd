//! Keeps one pipeline running: starts it, and starts it again when it has ended with an error.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_rt::{task::JoinHandle, time::sleep};
use slog::{Logger, error, info};
use tokio::sync::watch;

use super::MakePipeline;
use crate::{
    Error, PipelineHandle, Result, kafka::pipelined::SharedConnections, ops::Member,
    threads::ThreadPool,
};

/// A pipeline of the fleet.
pub(super) struct Keeper {
    stop: watch::Sender<bool>,
    kept: Arc<Mutex<Kept>>,
    /// Ends when the pipeline has stopped.
    task: JoinHandle<Result<()>>,
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
    pub retry_after: Duration,
    pub log: Logger,
}

impl Keeper {
    /// Starts the pipeline once `before` has stopped: it may read the same slot.
    pub fn start(make: MakePipeline, before: Option<Keeper>, around: Surroundings) -> Self {
        let (stop, stopping) = watch::channel(false);
        let kept = Arc::<Mutex<Kept>>::default();
        let task = actix_rt::spawn({
            let kept = Arc::clone(&kept);
            async move {
                if let Some(before) = before {
                    // It has logged its error.
                    let _ = before.stop().await;
                }
                keep(make, &kept, stopping, &around).await
            }
        });
        Keeper { stop, kept, task }
    }

    /// Stops the pipeline in order.
    ///
    /// # Errors
    /// As [`PipelineHandle::shutdown`].
    pub async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.task.await.unwrap_or(Ok(()))
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
    mut stopping: watch::Receiver<bool>,
    around: &Surroundings,
) -> Result<()> {
    let log = &around.log;
    // A keeper that is gone has been told to stop, too.
    let mut stopped = async || drop(stopping.wait_for(|stop| *stop).await);
    loop {
        let ended = tokio::select! {
            started = start(&make, around) => match started {
                Ok(pipeline) => {
                    let pipeline = Arc::new(pipeline);
                    *lock(kept) = Kept { pipeline: Some(Arc::clone(&pipeline)), failure: None };
                    tokio::select! {
                        ended = pipeline.wait() => ended,
                        () = stopped() => return pipeline.shutdown().await.inspect_err(|failure| {
                            error!(log, "pipeline not stopped in order"; "error" => %failure);
                        }),
                    }
                }
                Err(failure) => Err(failure),
            },
            () = stopped() => return Ok(()),
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
            () = stopped() => return Ok(()),
        }
    }
}

async fn start(make: &MakePipeline, around: &Surroundings) -> Result<PipelineHandle> {
    let builder = make()?.in_fleet(&around.threads, &around.connections, around.log.clone());
    builder.start_in_background().await
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
