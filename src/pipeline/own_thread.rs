//! A pipeline for programs without an actix `System`: it gets one, on a thread of its own.
//!
//! The thread ends with the handle, whichever runtime that lives in.

use std::thread;

use actix_rt::System;
use tokio::sync::oneshot;

use super::{PipelineBuilder, PipelineHandle};
use crate::{Error, ErrorKind, Result};

/// The thread's first message: the handle, or the error of the start.
type Started = Result<PipelineHandle>;

impl PipelineBuilder {
    /// Starts the pipeline as [`start`](Self::start) does, in an actix `System` on a thread of
    /// its own: for programs of plain tokio, axum and others that have none. The handle may
    /// be used from any thread and runtime; the thread ends with it.
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
            let what = "the system has no thread for the pipeline";
            Error::new(ErrorKind::Config, what).caused_by(error)
        })?;
        started.await.map_err(|error| {
            let what = "the pipeline's thread ended before the pipeline started";
            Error::new(ErrorKind::ActorFailed, what).caused_by(error)
        })?
    }
}

fn run(builder: PipelineBuilder, mut reply: oneshot::Sender<Started>) {
    let runner = System::new();
    let system = System::current();
    let started = runner.block_on(async {
        tokio::select! {
            started = builder.start() => Some(started),
            // Whoever asked has stopped waiting.
            () = reply.closed() => None,
        }
    });
    let Some(started) = started else { return };
    let runs = started.is_ok();
    // A handle that nobody takes any more is dropped, and stops the system.
    let _ = reply.send(started.map(|mut handle| {
        handle.system = Some(system);
        handle
    }));
    if runs {
        // Until the handle is dropped; there is nobody to tell how that went.
        let _ = runner.run();
    }
}
