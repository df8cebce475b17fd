//! The command line of `factlib takeover`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::handover::HandoverArgs;

const TAKEOVER_HELP: &str = "\
Examples:
  factlib takeover debezium --config connector.json --write factlib.toml
  factlib takeover debezium --config connector.json --factlib factlib.toml --take

Exit codes: those of factlib --help.";

pub const DEBEZIUM_HELP: &str = "\
Says what each setting of Debezium's connector is in factlib. --shadow compares records, --check
looks at Debezium's slot; both change nothing. --take takes the slot over, and can be run again
after a crash. Secrets are not copied. See docs/debezium.md.

Examples:
  factlib takeover debezium --config application.properties --write factlib.toml
  factlib takeover debezium --config connector.json --factlib factlib.toml --shadow --for 5m
  factlib takeover debezium --config connector.json --factlib factlib.toml --take

Exit codes: those of factlib --help; 2 also if a setting is missing or unknown; with --shadow, 1
if records differ in another way than the known ones.";

#[derive(Debug, Args)]
#[command(after_help = TAKEOVER_HELP)]
pub struct TakeoverArgs {
    #[command(subcommand)]
    pub command: TakeoverCommand,
}

#[derive(Debug, Subcommand)]
pub enum TakeoverCommand {
    /// Take over from Debezium's outbox event router
    #[command(after_help = DEBEZIUM_HELP)]
    Debezium(DebeziumArgs),
}

#[derive(Debug, Args)]
pub struct DebeziumArgs {
    /// Debezium's connector.json or application.properties
    // Replaces the global --config, which names factlib's own file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Configuration of Kafka Connect's worker
    #[arg(long, value_name = "FILE")]
    pub worker: Option<PathBuf>,
    /// Write factlib's configuration to this file
    #[arg(long, value_name = "PATH")]
    pub write: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// factlib's configuration, instead of the one that is made of Debezium's
    #[arg(long, value_name = "PATH", conflicts_with = "write")]
    pub factlib: Option<PathBuf>,
    /// Compare factlib's records with those that Debezium sends
    #[arg(long, conflicts_with = "write")]
    pub shadow: bool,
    /// Compare rows that are committed within this time
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = humantime_serde::re::humantime::parse_duration)]
    pub duration: Duration,
    /// Compare at most so many rows
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rows: u64,
    #[command(flatten)]
    pub handover: HandoverArgs,
}
