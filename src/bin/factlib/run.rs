//! `factlib run`: runs the relay until a signal stops it or an error ends it.

use std::mem::ManuallyDrop;

use actix_rt::System;
use factlib::{Error, ErrorKind, Pipeline, Result, config::Config};
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
    #[cfg(feature = "otlp")]
    let traces = TraceExport::from_environment(&log)?;
    let builder = Pipeline::builder().config(config).logger(log.clone());
    #[cfg(feature = "faults")]
    let builder = builder.faults(factlib::Faults::from_environment()?);
    #[cfg(feature = "otlp")]
    let builder = if traces.is_some() { builder.traced() } else { builder };
    let pipeline = builder.start_in_background().await?;
    tokio::select! {
        ended = pipeline.wait() => return ended,
        name = signals.next() => info!(log, "stopping"; "signal" => name),
    }
    tokio::select! {
        ended = pipeline.shutdown() => ended,
        name = signals.next() => {
            warn!(log, "ending at once"; "signal" => name);
            let failure = format!("a second signal ({name}) came before all in flight was delivered");
            let advice = "nothing is lost: it is sent again at the next start";
            Err(Error::new(ErrorKind::DrainTimeout, failure).remedy(advice))
        }
    }
}
