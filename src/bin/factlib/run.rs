//! `factlib run`: runs the relay until a signal stops it or an error ends it.

use std::mem::ManuallyDrop;
#[cfg(feature = "otlp")]
use std::sync::Arc;

use actix_rt::System;
use factlib::{Error, ErrorKind, Pipeline, PipelineBuilder, Result, config::Config};
use slog::{Logger, info, warn};

use crate::signals::Signals;
#[cfg(feature = "otlp")]
use crate::traces::TraceExport;

pub fn run(config: Config, log: Logger) -> Result<()> {
    // Not dropped, which would wait for pending name look-ups; the process ends after this anyway.
    let system = ManuallyDrop::new(System::new());
    system.block_on(relay(config, log))
}

async fn relay(config: Config, log: Logger) -> Result<()> {
    let mut signals = Signals::new()?;
    // Dropped last, so that the spans of the end are exported, too.
    let parts = Parts::new(&log)?;
    let builder = parts.pipeline(config)?.logger(log.clone());
    let pipeline = builder.start_in_background().await?;
    tokio::select! {
        ended = pipeline.wait() => return ended,
        name = signals.next() => info!(log, "stopping"; "signal" => name),
    }
    stop_in_order(pipeline.shutdown(), &mut signals, &log).await
}

/// Parts of the process that its pipelines share.
#[derive(Clone)]
pub struct Parts {
    #[cfg(feature = "otlp")]
    traces: Option<Arc<TraceExport>>,
}

impl Parts {
    #[cfg_attr(not(feature = "otlp"), allow(unused_variables))]
    pub fn new(log: &Logger) -> Result<Self> {
        Ok(Parts {
            #[cfg(feature = "otlp")]
            traces: TraceExport::from_environment(log)?.map(Arc::new),
        })
    }

    /// Begins a pipeline of this configuration.
    pub fn pipeline(&self, config: Config) -> Result<PipelineBuilder> {
        let builder = Pipeline::builder().config(config);
        #[cfg(feature = "faults")]
        let builder = builder.faults(factlib::Faults::from_environment()?);
        #[cfg(feature = "otlp")]
        let builder = if self.traces.is_some() { builder.traced() } else { builder };
        Ok(builder)
    }
}

/// Waits until everything has stopped in order, or for another signal.
pub async fn stop_in_order(
    stopped: impl Future<Output = Result<()>>,
    signals: &mut Signals,
    log: &Logger,
) -> Result<()> {
    tokio::select! {
        stopped = stopped => stopped,
        name = signals.next() => {
            warn!(log, "ending at once"; "signal" => name);
            let failure = format!("a second signal ({name}) came before all in flight was delivered");
            let advice = "nothing is lost: it is sent again at the next start";
            Err(Error::new(ErrorKind::DrainTimeout, failure).remedy(advice))
        }
    }
}
