//! The command line, as clap sees it.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use factlib::{Error, ErrorKind, Result, binary::Loader};

use crate::{
    about::{self, CompletionsArgs, ManArgs},
    dead_letter::DeadLetterArgs,
    doctor::{self, DoctorArgs},
    replay,
    replay::ReplayArgs,
    slot::SlotArgs,
    status::{self, StatusArgs},
    tail::{self, TailArgs},
};

const AFTER_HELP: &str = "\
Settings come from a TOML file, .env, the environment (FACTLIB_KAFKA__BROKERS for
kafka.brokers) and flags, the later over the earlier.

Examples:
  factlib doctor
  factlib setup --postgres-url postgresql://postgres@db/shop --dry-run
  factlib run --config /etc/factlib.toml
  factlib run --brokers kafka-1:9092,kafka-2:9092 --set kafka.compression=zstd
  factlib emit --aggregate-type user --aggregate-id u1 --event-type user.created --payload '{}'
  factlib tail --aggregate-type order
  factlib dead-letter list
  factlib replay --since 2h --dry-run

Exit codes:
  0 stopped as asked     4 Kafka
  1 defect or protocol   5 the position is lost: events may be missing
  2 configuration        6 the checkpoint store
  3 PostgreSQL           7 stopped before all in flight was delivered (nothing is lost)";

const RUN_HELP: &str = "\
SIGTERM, SIGINT or SIGHUP stops it in order: what is in flight is delivered and its
position saved, within pipeline.drain_timeout. A second signal ends it at once; what
was in flight is sent again at the next start.

Examples:
  factlib run
  factlib run --config /etc/factlib.toml --log-level debug
  MASTER_DATABASE_URL=postgresql://relay@db/shop KAFKA_BROKERS=kafka:9092 factlib run

Exit codes: those of factlib --help.";

const SETUP_HELP: &str = "\
Examples:
  factlib setup --postgres-url postgresql://postgres@db/shop
  factlib setup --dry-run | psql shop
  factlib setup --outbox-table --sql-functions
  factlib setup --outbox-table=sales.outbox
  factlib setup --accept-position     after a start was refused because facts may be missing

Exit codes: those of factlib --help; 5 where facts may be missing and that was not accepted.";

const EMIT_HELP: &str = "\
Prints the event's id. With --stdin, each line of standard input is a JSON object:
  {\"aggregate_type\":\"user\",\"aggregate_id\":\"u1\",\"event_type\":\"user.created\",
   \"payload\":{\"a\":1},\"metadata\":{\"k\":\"v\"}}
with payload any JSON, or payload_base64; id, trace_id and span_id may be given.

Examples:
  factlib emit --aggregate-type user --aggregate-id u1 --event-type user.created \\
      --payload '{\"a\":1}' --metadata tenant=7
  factlib emit --aggregate-type doc --aggregate-id d1 --event-type doc.stored --payload-file doc.bin
  factlib emit --stdin --batch 1000 < facts.jsonl

Exit codes:
  0 committed     2 configuration, or a fact or line that is none     3 PostgreSQL";

#[cfg(feature = "demo")]
const DEMO_HELP: &str = "\
Starts a throwaway PostgreSQL and a mock Kafka broker, emits facts, relays them, reads
them back and checks each one. Needs PostgreSQL's programs (make bootstrap gets them)
and nothing else; configuration files and the environment do not count. Leaves nothing
behind.

Prints the address of the status page. In a terminal, b stops the broker and starts it
again, space takes away the time limit, q ends it.

Examples:
  factlib demo
  factlib demo --rate 5000 --seconds 60
  factlib demo --seconds 0            until Ctrl-C
  factlib demo --set http.metrics_port=9100, and then: curl localhost:9100/metrics

Exit codes: those of factlib --help; 1 where a fact was lost, altered, out of order, or came
though rolled back.";

const ROUTE_HELP: &str = "\
Says for an event which [[route]] takes it, and the record or records that it becomes:
topic, key, partition, format, headers and value. Connects to nothing. Without
--aggregate-type, events are read from standard input, one JSON object a line, as
`factlib emit --stdin` reads them.

Examples:
  factlib route --explain --aggregate-type order --event-type order.placed --aggregate-id 7
  factlib route --explain --aggregate-type order --metadata tenant=acme --payload '{\"a\":1}'
  factlib route --explain < facts.jsonl

Exit codes:
  0 explained     2 configuration, or a line that is no event";

const CONFIG_HELP: &str = "\
Examples:
  factlib config                      the configuration in effect, and where it comes from
  factlib config --reference          every setting, as a Markdown table
  factlib config --example > factlib.toml

Exit codes:
  0 printed     2 a mistake in the configuration";

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
    /// Relay facts until stopped
    #[command(after_help = RUN_HELP)]
    Run,
    /// Check everything that a start needs, and say what to do
    #[command(after_help = doctor::HELP)]
    Doctor(DoctorArgs),
    /// Ask a running relay what it does
    #[command(after_help = status::HELP)]
    Status(StatusArgs),
    /// Show the replication slot, create it, drop it or advance it
    Slot(SlotArgs),
    /// Print events as they commit
    #[command(after_help = tail::HELP)]
    Tail(TailArgs),
    /// Create slot, publication and checkpoint table where they are missing
    #[command(after_help = SETUP_HELP)]
    Setup(SetupArgs),
    /// Write facts into the database, as an application would
    #[command(after_help = EMIT_HELP)]
    Emit(EmitArgs),
    /// Relay facts between throwaway servers and check that none is lost
    #[cfg(feature = "demo")]
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Look at events that could not be delivered, and send them again
    DeadLetter(DeadLetterArgs),
    /// Send facts of the past again, from the table that they were written to
    #[command(after_help = replay::HELP)]
    Replay(ReplayArgs),
    /// Show where an event would go, and as what
    #[command(after_help = ROUTE_HELP)]
    Route(RouteArgs),
    /// Show the configuration and what there is to set
    #[command(after_help = CONFIG_HELP)]
    Config(ConfigArgs),
    /// Print the completions of a shell
    #[command(after_help = about::COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_help = about::MAN_HELP)]
    Man(ManArgs),
}

/// Flags that set settings; every subcommand has them.
#[derive(ClapArgs, Default)]
#[command(next_help_heading = "Settings")]
pub struct SettingArgs {
    /// Configuration file [default: $FACTLIB_CONFIG, or factlib.toml if it is there]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Any setting; `factlib config --reference` lists them
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// postgres.url; other users of this machine can see it: prefer the environment for passwords
    #[arg(long, global = true, value_name = "URL")]
    pub postgres_url: Option<String>,
    /// postgres.slot
    #[arg(long, global = true, value_name = "NAME")]
    pub slot: Option<String>,
    /// postgres.publication
    #[arg(long, global = true, value_name = "NAME")]
    pub publication: Option<String>,
    /// postgres.message_prefix
    #[arg(long, global = true, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// kafka.brokers, separated by commas
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,
    /// kafka.topic_prefix
    #[arg(long, global = true, value_name = "PREFIX")]
    pub topic_prefix: Option<String>,
    /// log.level: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// log.format: auto, json or terminal
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct SetupArgs {
    /// Print the SQL instead of running it
    #[arg(long)]
    pub dry_run: bool,
    /// Start from the slot's own position, though facts may be missing before it
    #[arg(long, conflicts_with = "dry_run")]
    pub accept_position: bool,
    /// Create an outbox table too, for services that write facts as rows
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "public.outbox_events"
    )]
    pub outbox_table: Option<String>,
    /// Install the functions factlib.emit and factlib.emit_batch too, or their newer versions
    #[arg(long)]
    pub sql_functions: bool,
}

#[derive(Debug, ClapArgs)]
pub struct EmitArgs {
    /// Read facts from standard input, one JSON object a line
    #[arg(long)]
    pub stdin: bool,
    /// Facts in a transaction, with --stdin
    #[arg(long, value_name = "N", default_value = "100", conflicts_with = "aggregate_type", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch: u32,
    #[command(flatten)]
    pub fact: FactArgs,
}

#[derive(Debug, ClapArgs)]
pub struct FactArgs {
    /// What the fact is about; with the prefix, the topic
    #[arg(long, value_name = "TYPE", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub aggregate_type: Option<String>,
    /// Which one; the record's key
    #[arg(long, value_name = "ID", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub aggregate_id: Option<String>,
    /// What happened
    #[arg(long, value_name = "TYPE", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub event_type: Option<String>,
    /// The payload as text; empty when not given
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["stdin", "payload_file"])]
    pub payload: Option<String>,
    /// The payload from a file; `-` is standard input
    #[arg(long, value_name = "PATH", conflicts_with = "stdin")]
    pub payload_file: Option<PathBuf>,
    /// Metadata; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "stdin", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// Trace to which the fact belongs
    #[arg(long, value_name = "HEX", conflicts_with = "stdin", requires = "span_id")]
    pub trace_id: Option<String>,
    /// Span to which the fact belongs
    #[arg(long, value_name = "HEX", conflicts_with = "stdin", requires = "trace_id")]
    pub span_id: Option<String>,
}

#[cfg(feature = "demo")]
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// Facts a second; above some thousands the mock broker is what is measured
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: u32,
    /// How long; 0 is until Ctrl-C
    #[arg(long, value_name = "N", default_value = "20", env = "DEMO_SECONDS")]
    pub seconds: u64,
}

#[derive(Debug, ClapArgs)]
pub struct RouteArgs {
    /// Explain what becomes of an event
    #[arg(long, required = true)]
    pub explain: bool,
    #[command(flatten)]
    pub event: EventArgs,
}

#[derive(Debug, ClapArgs)]
pub struct EventArgs {
    /// What the event is about
    #[arg(long, value_name = "TYPE")]
    pub aggregate_type: Option<String>,
    /// What happened
    #[arg(long, value_name = "TYPE", default_value = "", requires = "aggregate_type")]
    pub event_type: String,
    /// Which one it is about
    #[arg(long, value_name = "ID", default_value = "", requires = "aggregate_type")]
    pub aggregate_id: String,
    /// The event's own id
    #[arg(long, value_name = "ID", default_value = "", requires = "aggregate_type")]
    pub id: String,
    /// The payload as text
    #[arg(long, value_name = "TEXT", default_value = "", requires = "aggregate_type")]
    pub payload: String,
    /// Metadata; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", requires = "aggregate_type", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub struct ConfigArgs {
    /// Every setting, as a Markdown table
    #[arg(long)]
    pub reference: bool,
    /// A configuration file with every setting, commented out
    #[arg(long)]
    pub example: bool,
    /// The configuration in effect, as JSON
    #[arg(long)]
    pub json: bool,
}

impl SettingArgs {
    /// The loader for this process and these flags.
    pub fn loader(&self) -> Result<Loader> {
        self.flags(Loader::process()?)
    }

    /// The loader, with these flags.
    pub fn flags(&self, mut loader: Loader) -> Result<Loader> {
        if let Some(path) = &self.config {
            loader = loader.file(path);
        }
        for set in &self.set {
            let Some((setting, value)) = set.split_once('=') else {
                let what = format!("flag --set {set}: expected section.key=value");
                return Err(Error::new(ErrorKind::Config, what));
            };
            loader = loader.flag(format!("--set {setting}"), setting.trim(), value);
        }
        let flags = [
            ("--postgres-url", "postgres.url", &self.postgres_url),
            ("--slot", "postgres.slot", &self.slot),
            ("--publication", "postgres.publication", &self.publication),
            ("--prefix", "postgres.message_prefix", &self.prefix),
            ("--brokers", "kafka.brokers", &self.brokers),
            ("--topic-prefix", "kafka.topic_prefix", &self.topic_prefix),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (flag, setting, value) in flags {
            if let Some(value) = value {
                loader = loader.flag(flag, setting, value);
            }
        }
        Ok(loader)
    }
}

impl std::fmt::Debug for SettingArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Any of the others may hold a password.
        f.debug_struct("SettingArgs").field("config", &self.config).finish_non_exhaustive()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn settings_may_follow_the_subcommand() {
        let line = ["factlib", "run", "--slot", "s1", "--set", "log.level=debug"];
        let args = Args::try_parse_from(line).expect("a valid line");
        assert_eq!(args.settings.slot.as_deref(), Some("s1"));
        assert_eq!(args.settings.set, ["log.level=debug"]);
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
