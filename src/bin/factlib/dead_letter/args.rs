//! The command line of `factlib dead-letter`.

use std::time::Duration;

use clap::{Args, Subcommand};
use factlib::dead_letter::LetterPosition;

const HELP: &str = "\
Events that Kafka refuses for good, that are no OutboxEvent or that have no legal
topic are parked in the dead-letter topic (dead_letter.topic), so that those behind
them flow. A letter is named by its place there, PARTITION:OFFSET.

Examples:
  factlib dead-letter list
  factlib dead-letter show 0:17
  factlib dead-letter redrive 0:17

Exit codes: those of factlib --help; 4 where a letter was refused again.";

const LIST_HELP: &str = "\
Columns: position, time, source topic, event id, key, event type, bytes, when it was
redriven, error. They are separated by tabs where the output is no terminal.

Examples:
  factlib dead-letter list --since 1h
  factlib dead-letter list --topic shop.user --limit 10
  factlib dead-letter list --topic ''      those that belong to no topic
  factlib dead-letter list --json | jq -r 'select(.redriven_at == null).position'

Exit codes: those of factlib --help.";

const SHOW_HELP: &str = "\
Examples:
  factlib dead-letter show 0:17
  factlib dead-letter show 0:17 --raw > event.bin

Exit codes: those of factlib --help; 2 where there is no such letter.";

const REDRIVE_HELP: &str = "\
The original bytes, key and headers go to the topic that they belong to, one letter
after the other, in the order in which they were parked; the header redriven_from
says where they were. What was redriven is remembered in the table factlib.redriven
and not sent twice. A crash can repeat one letter, with the same event id.

Redriven events come after those of their aggregate that were delivered meanwhile:
their consumers see them late, though in order among each other.

A letter that is refused again is reported, and the others go on.

Examples:
  factlib dead-letter redrive --all --dry-run
  factlib dead-letter redrive --all --topic shop.user
  factlib dead-letter redrive 0:17 0:19
  factlib dead-letter redrive 0:3 --to-topic shop.repaired

Exit codes: those of factlib --help; 4 where a letter was refused again.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    pub command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// One line a letter, the oldest of each partition first
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// One letter: headers, event, payload
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Send letters again to where they belong
    #[command(after_help = REDRIVE_HELP)]
    Redrive(RedriveArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Only those that belong to this topic
    #[arg(long, value_name = "SOURCE")]
    pub topic: Option<String>,
    /// Only those parked within this time, such as 90s, 1h or 2days
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Which one
    #[arg(value_name = "PARTITION:OFFSET")]
    pub position: LetterPosition,
    /// Write the event's own bytes, and nothing else
    #[arg(long)]
    pub raw: bool,
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Which ones
    #[arg(value_name = "PARTITION:OFFSET", required_unless_present = "all")]
    pub positions: Vec<LetterPosition>,
    /// All that were not redriven before
    #[arg(long, conflicts_with = "positions")]
    pub all: bool,
    /// Only those that belong to this topic
    #[arg(long, value_name = "SOURCE", conflicts_with = "positions")]
    pub topic: Option<String>,
    /// Where they go, in place of where each belongs
    #[arg(long, value_name = "TOPIC")]
    pub to_topic: Option<String>,
    /// Also those that were redriven before
    #[arg(long)]
    pub again: bool,
    /// Say what would be sent where, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Args;

    #[test]
    fn letters_are_named_or_all_are_meant() {
        let parse = |line: &str| {
            Args::try_parse_from(["factlib", "dead-letter"].into_iter().chain(line.split(' ')))
        };
        for line in [
            "list",
            "list --json --limit 3 --topic a --since 1h",
            "show 0:1",
            "show 0:1 --raw",
            "redrive 0:1 1:2 --to-topic a --dry-run",
            "redrive --all --topic a --again",
        ] {
            assert!(parse(line).is_ok(), "{line} is refused: {:?}", parse(line).err());
        }
        for line in [
            "list --since yesterday",
            "show",
            "show 1",
            "redrive",
            "redrive --all 0:1",
            "redrive 0:1 --topic a",
            "redrive --topic a",
        ] {
            assert!(parse(line).is_err(), "{line} is taken");
        }
    }
}
