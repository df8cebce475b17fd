//! The thread that a client's driver runs on.

use std::{future::Future, sync::Arc, thread};

use actix_rt::ArbiterHandle;

use super::reports::Reports;
use crate::{Error, ErrorKind, Result};

/// The thread for a client's driver.
#[derive(Clone, Debug, Default)]
pub(crate) enum ClientThread {
    /// A new one, which ends with the driver.
    #[default]
    Own,
    /// One that others run on, too.
    Shared(ArbiterHandle),
}

impl ClientThread {
    /// Runs a client's driver. When it ends, also by a panic, the batches of all topics fail.
    ///
    /// # Errors
    /// [`ErrorKind::KafkaUnavailable`] if the system has no thread for it, or the shared one has
    /// ended.
    pub(super) fn run(
        &self,
        driver: impl Future<Output = ()> + Send + 'static,
        reports: &Arc<Reports>,
    ) -> Result<()> {
        let guard = FailOnEnd(Arc::clone(reports));
        let guarded = async move {
            let _guard = guard;
            driver.await;
        };
        let what = "cannot start the thread of the Kafka client";
        let failed = || Error::new(ErrorKind::KafkaUnavailable, what);
        match self {
            ClientThread::Shared(thread) => thread.spawn(guarded).then_some(()).ok_or_else(failed),
            ClientThread::Own => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| failed().caused_by(error))?;
                let thread = thread::Builder::new().name("factlib-kafka".into());
                let started = thread.spawn(move || runtime.block_on(guarded));
                started.map(drop).map_err(|error| failed().caused_by(error))
            }
        }
    }
}

/// Fails all open topics when it is dropped.
struct FailOnEnd(Arc<Reports>);

impl Drop for FailOnEnd {
    fn drop(&mut self) {
        let what = "the thread of the Kafka client has ended";
        self.0.fail_all(&Error::new(ErrorKind::ActorFailed, what));
    }
}
