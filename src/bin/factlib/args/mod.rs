//! The command line of the program: subcommands, their flags and their help texts.

mod help;
mod settings;

use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "demo")]
use self::help::DEMO_HELP;
use self::help::{AFTER_HELP, CONFIG_HELP, EMIT_HELP, ROUTE_HELP, RUN_HELP, SETUP_HELP};
pub use self::settings::{SettingArgs, with_short_help};
use crate::{
    about::{self, CompletionsArgs, ManArgs},
    audit::{self, AuditArgs},
    dead_letter::DeadLetterArgs,
    doctor::{self, DoctorArgs},
    fleet::FleetArgs,
    init::{self, InitArgs},
    replay,
    replay::ReplayArgs,
    server_move::MoveArgs,
    slot::SlotArgs,
    status::{self, StatusArgs},
    tail::{self, TailArgs},
    takeover::TakeoverArgs,
    trace::{self, TraceArgs},
};
/// Relays facts committed in PostgreSQL to Kafka and loses none.
#[derive(Debug, Parser)]
#[command(name = "factlib", version, long_version = about::version(), after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    pub settings: SettingArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a configuration file for your servers, and check them
    #[command(after_help = init::HELP)]
    Init(InitArgs),
    /// Relay facts until stopped
    #[command(after_help = RUN_HELP)]
    Run,
    /// Check everything that a start needs, and print remedies
    #[command(after_help = doctor::HELP)]
    Doctor(DoctorArgs),
    /// Show the status of a running relay
    #[command(after_help = status::HELP)]
    Status(StatusArgs),
    /// Show who runs each pipeline of a fleet
    Fleet(FleetArgs),
    /// Show, create, drop or advance the replication slot
    Slot(SlotArgs),
    /// Move the relay to another PostgreSQL server
    Move(MoveArgs),
    /// Take over from another relay
    Takeover(TakeoverArgs),
    /// Print events as they commit
    #[command(after_help = tail::HELP)]
    Tail(TailArgs),
    /// Create slot, publication and checkpoint table if they are missing
    #[command(after_help = SETUP_HELP)]
    Setup(SetupArgs),
    /// Write facts into the database, as an application would
    #[command(after_help = EMIT_HELP)]
    Emit(EmitArgs),
    /// Relay facts between throwaway servers and check that none is lost
    #[cfg(feature = "demo")]
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// List events that could not be delivered, and send them again
    DeadLetter(DeadLetterArgs),
    /// Send past facts again from the table that they were written to
    #[command(after_help = replay::HELP)]
    Replay(ReplayArgs),
    /// Show what became of one event
    #[command(after_help = trace::HELP)]
    Trace(TraceArgs),
    /// Check the topics against the table that facts were written to
    #[command(after_help = audit::HELP)]
    Audit(AuditArgs),
    /// Show the topic and record that an event would become
    #[command(after_help = ROUTE_HELP)]
    Route(RouteArgs),
    /// Show the configuration in effect, or all settings
    #[command(after_help = CONFIG_HELP)]
    Config(ConfigArgs),
    /// Print shell completions
    #[command(after_help = about::COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print a manual page
    #[command(after_help = about::MAN_HELP)]
    Man(ManArgs),
}

/// Parses this process's command line; help, version and usage errors end the process.
pub fn parse() -> Args {
    let matches = with_short_help(Args::command()).get_matches();
    Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[derive(Debug, Default, ClapArgs)]
pub struct SetupArgs {
    /// Print the SQL instead of running it
    #[arg(long)]
    pub dry_run: bool,
    /// Start from the slot's position, accepting that facts before it may be missing
    #[arg(long, conflicts_with = "dry_run")]
    pub accept_position: bool,
    /// Also create an outbox table, for services that write facts as rows
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "public.outbox_events"
    )]
    pub outbox_table: Option<String>,
    /// Also install or update the SQL functions factlib.emit and factlib.emit_batch
    #[arg(long)]
    pub sql_functions: bool,
}

#[derive(Debug, ClapArgs)]
pub struct EmitArgs {
    /// Read facts from standard input, one JSON object per line
    #[arg(long)]
    pub stdin: bool,
    /// Facts per transaction, with --stdin
    #[arg(long, value_name = "N", default_value = "100", conflicts_with = "aggregate_type", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch: u32,
    #[command(flatten)]
    pub fact: FactArgs,
}

#[derive(Debug, ClapArgs)]
pub struct FactArgs {
    /// Type of the aggregate that the fact is about; with the prefix, the topic
    #[arg(long, value_name = "TYPE", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub aggregate_type: Option<String>,
    /// Id of the aggregate; the record's key
    #[arg(long, value_name = "ID", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub aggregate_id: Option<String>,
    /// Type of the event, such as order.placed
    #[arg(long, value_name = "TYPE", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub event_type: Option<String>,
    /// Payload as text; empty when not given
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["stdin", "payload_file"])]
    pub payload: Option<String>,
    /// File with the payload; `-` is standard input
    #[arg(long, value_name = "PATH", conflicts_with = "stdin")]
    pub payload_file: Option<PathBuf>,
    /// Metadata entry; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "stdin", value_parser = key_value)]
    pub metadata: Vec<(String, String)>,
    /// Trace that the fact belongs to
    #[arg(long, value_name = "HEX", conflicts_with = "stdin", requires = "span_id")]
    pub trace_id: Option<String>,
    /// Span that the fact belongs to
    #[arg(long, value_name = "HEX", conflicts_with = "stdin", requires = "trace_id")]
    pub span_id: Option<String>,
}

#[cfg(feature = "demo")]
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// Make what the demo needs on your servers without asking
    #[arg(long)]
    pub yes: bool,
    /// Facts per second; above a few thousand, the fake broker is the bottleneck
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: u32,
    /// Duration in seconds; 0 runs until Ctrl-C
    #[arg(long, value_name = "N", default_value = "20", env = "DEMO_SECONDS")]
    pub seconds: u64,
}

#[derive(Debug, ClapArgs)]
pub struct RouteArgs {
    /// Explain the route of an event; this is the default
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub event: EventArgs,
}

#[derive(Debug, ClapArgs)]
pub struct EventArgs {
    /// Type of the aggregate that the event is about
    #[arg(long, value_name = "TYPE")]
    pub aggregate_type: Option<String>,
    /// Type of the event
    #[arg(long, value_name = "TYPE", default_value = "", requires = "aggregate_type")]
    pub event_type: String,
    /// Id of the aggregate
    #[arg(long, value_name = "ID", default_value = "", requires = "aggregate_type")]
    pub aggregate_id: String,
    /// Id of the event
    #[arg(long, value_name = "ID", default_value = "", requires = "aggregate_type")]
    pub id: String,
    /// Payload as text
    #[arg(long, value_name = "TEXT", default_value = "", requires = "aggregate_type")]
    pub payload: String,
    /// Metadata entry; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "aggregate_type", value_parser = key_value)]
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub struct ConfigArgs {
    /// Print every setting as a Markdown table
    #[arg(long)]
    pub reference: bool,
    /// Print a configuration file with every setting, commented out
    #[arg(long)]
    pub example: bool,
    /// Print the configuration in effect as JSON
    #[arg(long)]
    pub json: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_subcommands_help_lists_no_flags_of_single_settings() {
        let help = |path: &[&str]| {
            let mut command = with_short_help(Args::command());
            let found = path.iter().try_fold(&mut command, |of, name| of.find_subcommand_mut(name));
            found.expect("a subcommand").render_help().to_string()
        };
        for path in [&["demo"][..], &["init"]] {
            assert!(help(path).contains("--brokers <") && !help(path).contains("--slot <"));
        }
        for path in [&["run"][..], &["slot", "drop"], &["dead-letter", "list"]] {
            let help = help(path);
            assert!(help.contains("--config <") && help.contains("--set <"), "{help}");
            assert!(!help.contains("--brokers"), "{help}");
        }
        for name in ["completions", "man"] {
            assert!(!help(&[name]).contains("Settings:"), "{name}");
        }
    }

    #[test]
    fn settings_may_follow_the_subcommand() {
        let line = ["factlib", "run", "--slot", "s1", "--set", "log.level=debug"];
        let command = with_short_help(Args::command());
        let matches = command.try_get_matches_from(line).expect("a valid line");
        let args = Args::from_arg_matches(&matches).expect("a valid line");
        assert_eq!(args.settings.slot.as_deref(), Some("s1"));
        assert_eq!(args.settings.overrides, ["log.level=debug"]);
        assert!(!format!("{args:?}").contains("s1"), "flags may be secrets");
    }

    #[test]
    fn a_fact_is_given_by_flags_or_by_lines() {
        let parse = |line: &str| {
            Args::try_parse_from(["factlib", "emit"].into_iter().chain(line.split(' ')))
        };
        let fact = "--aggregate-type user --aggregate-id u1 --event-type created";
        for line in [
            fact.to_owned(),
            format!("{fact} --payload x --metadata a=b --metadata c=d=e"),
            format!("{fact} --trace-id 1 --span-id 2"),
            "--stdin".into(),
            "--stdin --batch 7".into(),
        ] {
            assert!(parse(&line).is_ok(), "{line} is refused");
        }
        for line in [
            "--aggregate-type user".to_owned(),
            format!("{fact} --stdin"),
            format!("{fact} --batch 7"),
            format!("{fact} --payload x --payload-file y"),
            format!("{fact} --metadata nothing"),
            format!("{fact} --trace-id 1"),
            "--stdin --payload x".into(),
            "--stdin --batch 0".into(),
        ] {
            assert!(parse(&line).is_err(), "{line} is taken");
        }
    }
}
