//! Starts a pipeline with an actix `System` on its own thread, for programs that have none.
//!
//! The thread ends when the handle is dropped, in any thread or runtime.

use std::thread;

use actix_rt::System;
use tokio::sync::oneshot;

use super::{PipelineBuilder, PipelineHandle};
use crate::{Error, ErrorKind, Result};

/// Answer of the thread: the handle, or the error of the start.
type Started = Result<PipelineHandle>;

impl PipelineBuilder {
    /// Starts the pipeline as [`start`](Self::start) does, in an actix `System` on its own thread, for
    /// programs that use plain tokio, axum or the like. The handle may be used from any thread and
    /// runtime; the thread ends when it is dropped.
    ///
    /// ```no_run
    /// use factlib::{Pipeline, config::Config};
    ///
    /// #[tokio::main(flavor = "current_thread")]
    /// async fn main() -> factlib::Result<()> {
    ///     let pipeline = Pipeline::builder().config(Config::default()).start_on_own_thread().await?;
    ///     // … until the program ends:
    ///     pipeline.shutdown().await
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on_own_thread(self) -> Result<PipelineHandle> {
        let (reply, started) = oneshot::channel();
        let spawned = thread::Builder::new().name("factlib".into()).spawn(|| run(self, reply));
        spawned.map_err(|error| {
            let failure = "the system has no thread for the pipeline";
            Error::new(ErrorKind::Config, failure).caused_by(error)
        })?;
        started.await.map_err(|error| {
            let failure = "the pipeline's thread ended before the pipeline started";
            Error::new(ErrorKind::ActorFailed, failure).caused_by(error)
        })?
    }
}

fn run(builder: PipelineBuilder, mut reply: oneshot::Sender<Started>) {
    let runner = System::new();
    let system = System::current();
    let started = runner.block_on(async {
        tokio::select! {
            started = builder.start() => Some(started),
            // The caller has stopped waiting.
            () = reply.closed() => None,
        }
    });
    let Some(started) = started else { return };
    let is_running = started.is_ok();
    // If the caller is gone, the handle is dropped, which stops the system.
    let _ = reply.send(started.map(|mut handle| {
        handle.system = Some(system);
        handle
    }));
    if is_running {
        // Runs until the handle is dropped; nobody is left to get the result.
        let _ = runner.run();
    }
}
