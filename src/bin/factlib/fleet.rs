//! `factlib run` with `fleet.pipelines`: runs the pipelines of a folder, and takes up its changes.

use std::{
    collections::BTreeMap,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    time::Duration,
};

use actix_rt::System;
use factlib::{Error, ErrorKind, Fleet, FleetHandle, Result, binary::Loader, config::Config};
use slog::{Logger, error, info, warn};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    run::{Parts, stop_in_order},
    signals::Signals,
};

/// Loads the configuration of one pipeline.
///
/// # Errors
/// There is no folder of pipelines, or there is a mistake in its file.
pub fn load(loader: &Loader, config: &Config, name: &str) -> Result<factlib::binary::Loaded> {
    let Some(folder) = &config.fleet.pipelines else {
        let failure = format!("there is no pipeline {name}: fleet.pipelines is not set");
        return Err(Error::new(ErrorKind::Config, failure));
    };
    loader.load_pipeline(folder, name)
}

/// Runs the pipelines of a folder until a signal comes.
pub fn run(loader: Loader, config: &Config, folder: &Path, log: Logger) -> Result<()> {
    // Not dropped, as in `factlib run` of one pipeline.
    let system = ManuallyDrop::new(System::new());
    system.block_on(async {
        let parts = Parts::new(&log)?;
        let fleet = Fleet::builder().config(config).logger(log.clone()).start()?;
        let (folder, running) = (folder.to_owned(), BTreeMap::new());
        let mut folder = Folder { loader, folder, running, parts, log: log.clone() };
        folder.take_up(&fleet)?;
        if folder.running.is_empty() {
            warn!(log, "there are no pipelines";
                "remedy" => "add a file NAME.toml to the folder fleet.pipelines");
        }
        let mut signals = Signals::new()?;
        let every = config.fleet.check_interval;
        let mut check = interval(every.max(Duration::from_secs(1)));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    "SIGHUP" => info!(log, "reading the pipelines again"; "signal" => signal),
                    signal => {
                        info!(log, "stopping"; "signal" => signal);
                        return stop_in_order(fleet.shutdown(), &mut signals, &log).await;
                    }
                },
                _ = check.tick(), if !every.is_zero() => {}
            }
            if let Err(failure) = folder.take_up(&fleet) {
                error!(log, "the pipelines stay as they are"; "error" => %failure);
            }
        }
    })
}

/// The folder of the pipelines, and what runs of it.
struct Folder {
    loader: Loader,
    folder: PathBuf,
    /// Each with the number of its files.
    running: BTreeMap<String, u64>,
    parts: Parts,
    log: Logger,
}

impl Folder {
    /// Starts new pipelines, stops those that are gone, and starts changed ones again. A mistake in
    /// a changed file leaves its pipeline as it is.
    fn take_up(&mut self, fleet: &FleetHandle) -> Result<()> {
        let found = self.loader.pipelines(&self.folder)?;
        let gone: Vec<_> =
            self.running.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            info!(self.log, "pipeline removed"; "pipeline" => &name);
            self.running.remove(&name);
            fleet.remove_in_background(&name);
        }
        for (name, files) in found {
            let before = self.running.insert(name.clone(), files);
            if before == Some(files) {
                continue;
            }
            let loaded = self.loader.load_pipeline(&self.folder, &name);
            match (&loaded, before) {
                (Err(failure), Some(_)) => {
                    error!(self.log, "pipeline not changed: there is a mistake in its file";
                        "pipeline" => &name, "error" => %failure);
                    continue;
                }
                (_, Some(_)) => info!(self.log, "pipeline changed"; "pipeline" => &name),
                (_, None) => info!(self.log, "pipeline added"; "pipeline" => &name),
            }
            for path in loaded.iter().flat_map(|loaded| &loaded.exposed) {
                warn!(self.log, "a file with secrets is readable by every user of this machine";
                    "path" => %path.display(), "pipeline" => &name);
            }
            let (loader, folder, parts) =
                (self.loader.clone(), self.folder.clone(), self.parts.clone());
            let file = name.clone();
            fleet.set(name, move || {
                let config = loader.load_pipeline(&folder, &file)?.config;
                parts.pipeline(config)
            });
        }
        Ok(())
    }
}
