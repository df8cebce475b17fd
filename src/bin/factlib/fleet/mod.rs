//! `factlib run` with the section `[fleet]`: runs several pipelines, and takes up their changes.
//! `factlib fleet status` shows them.

mod status;

use std::{collections::BTreeMap, mem::ManuallyDrop, process::ExitCode, time::Duration};

use actix_rt::System;
use clap::{Args as ClapArgs, Subcommand};
use factlib::{
    Error, ErrorKind, Fleet, FleetHandle, Result,
    binary::{Loaded, Loader, databases, is_pipeline},
    config::Config,
};
use slog::{Logger, error, info, warn};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    run::{Parts, stop_in_order},
    signals::Signals,
};

const HELP: &str = "\
Examples:
  factlib fleet status
  factlib fleet status --json

Exit codes: those of factlib fleet status --help.";

const STATUS_HELP: &str = "\
Lists all pipelines: the instance that runs each, since when, the WAL after its slot's confirmed
position, and if the slot is being read; below that, why a pipeline does not run. With
fleet.group, Kafka says who runs what. Without it, a pipeline runs if its slot is being read.

Examples:
  factlib fleet status
  factlib fleet status --json | jq -r '.pipelines[] | select(.instance == null) | .name'

Exit codes:
  0 all pipelines run     1 some do not     2 configuration     4 Kafka";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Show who runs each pipeline, since when, and its lag
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs `factlib fleet …`.
pub fn command(
    args: &FleetArgs,
    loader: &Loader,
    config: &Config,
    log: &Logger,
) -> Result<ExitCode> {
    let FleetCommand::Status { json } = &args.command;
    status::run(*json, loader, config, log)
}

const SHORTEST: Duration = Duration::from_secs(1);
/// Interval of looks that only SIGHUP asks for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The error of a group that has no pipelines to share.
pub fn nothing_to_share() -> Error {
    let failure = "fleet.group is set, and neither fleet.pipelines nor fleet.databases";
    Error::new(ErrorKind::Config, failure).remedy("set one of them, or no fleet.group")
}

/// Loads the configuration of one pipeline.
///
/// # Errors
/// There are no pipelines, or there is a mistake in its file.
pub fn load(loader: &Loader, config: &Config, name: &str) -> Result<Loaded> {
    if !config.fleet.is_set() {
        let failure = format!("there is no pipeline {name}: fleet.pipelines is not set");
        return Err(Error::new(ErrorKind::Config, failure));
    }
    loader.load_pipeline(&config.fleet, name)
}

/// Runs all pipelines until a signal comes.
pub fn run(loader: Loader, config: Config, log: Logger) -> Result<()> {
    // Not dropped, as in `factlib run` of one pipeline.
    let system = ManuallyDrop::new(System::new());
    system.block_on(async {
        let parts = Parts::new(&log)?;
        let mut signals = Signals::new()?;
        let fleet = Fleet::builder().config(&config).logger(log.clone()).start()?;
        let every = config.fleet.check_interval;
        let running = BTreeMap::new();
        let mut pipelines =
            Pipelines { loader, config, running, found: Vec::new(), parts, log: log.clone() };
        pipelines.find_databases().await;
        pipelines.take_up(&fleet)?;
        if pipelines.running.is_empty() {
            warn!(log, "there are no pipelines yet";
                "remedy" => "add a file to fleet.pipelines, or a database that fleet.databases names");
        }
        let mut check = interval(if every.is_zero() { NEVER } else { every.max(SHORTEST) });
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.reset();
        loop {
            // A server that does not answer must not hold up a signal.
            let look = async {
                check.tick().await;
                pipelines.find_databases().await;
            };
            tokio::select! {
                signal = signals.next() => match signal {
                    "SIGHUP" => {
                        info!(log, "reading the pipelines again"; "signal" => signal);
                        check.reset_immediately();
                    }
                    signal => {
                        info!(log, "stopping"; "signal" => signal);
                        return stop_in_order(fleet.shutdown(), &mut signals, &log).await;
                    }
                },
                () = look => if let Err(failure) = pipelines.take_up(&fleet) {
                    error!(log, "the pipelines stay as they are"; "error" => %failure);
                }
            }
        }
    })
}

/// The pipelines that are configured, and those that run.
struct Pipelines {
    loader: Loader,
    config: Config,
    /// Each with the number of its files.
    running: BTreeMap<String, u64>,
    /// Databases that were there at the last look.
    found: Vec<String>,
    parts: Parts,
    log: Logger,
}

impl Pipelines {
    /// Starts new pipelines, stops those that are gone, and starts changed ones again. A mistake in
    /// a changed file leaves its pipeline as it is.
    fn take_up(&mut self, fleet: &FleetHandle) -> Result<()> {
        let found = self.loader.pipelines(&self.config.fleet, &self.found)?;
        let gone: Vec<_> =
            self.running.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            info!(self.log, "pipeline removed"; "pipeline" => &name);
            self.running.remove(&name);
            fleet.remove_in_background(&name);
        }
        for (name, files) in found {
            let before = self.running.insert(name.clone(), files);
            if before != Some(files) {
                self.start(fleet, name, before.is_some());
            }
        }
        Ok(())
    }

    /// Looks for databases. While the server does not answer, those of the last look count.
    async fn find_databases(&mut self) {
        if self.config.fleet.databases.is_empty() {
            return;
        }
        match databases(&self.config, &self.log).await {
            Ok(found) => {
                let is_new = |name: &&String| !self.found.contains(*name);
                for name in found.iter().filter(is_new).filter(|name| !is_pipeline(name)) {
                    warn!(self.log, "a database has no pipeline: its name can't be part of a slot's";
                        "database" => name, "remedy" => "give it a file in fleet.pipelines");
                }
                self.found = found;
            }
            Err(failure) => {
                warn!(self.log, "cannot look for new databases"; "error" => %failure);
            }
        }
    }

    /// Starts a new or changed pipeline.
    fn start(&self, fleet: &FleetHandle, name: String, is_changed: bool) {
        let (loader, settings) = (self.loader.clone(), self.config.fleet.clone());
        let loaded = loader.load_pipeline(&settings, &name);
        match (&loaded, is_changed) {
            (Err(failure), true) => {
                error!(self.log, "pipeline not changed: there is a mistake in its file";
                    "pipeline" => &name, "error" => %failure);
                return;
            }
            (_, true) => info!(self.log, "pipeline changed"; "pipeline" => &name),
            (_, false) => info!(self.log, "pipeline added"; "pipeline" => &name),
        }
        for path in loaded.iter().flat_map(|loaded| &loaded.exposed) {
            warn!(self.log, "a file with secrets is readable by every user of this machine";
                "path" => %path.display(), "pipeline" => &name);
        }
        let (parts, file) = (self.parts.clone(), name.clone());
        fleet.set(name, move || parts.pipeline(loader.load_pipeline(&settings, &file)?.config));
    }
}
