//! The command line of `factlib dead-letter`.

use std::time::Duration;

use clap::{Args, Subcommand};
use factlib::dead_letter::LetterPosition;

const HELP: &str = "\
Events that Kafka refuses for good, that are not valid or that have no legal topic name are
parked in the dead-letter topic (dead_letter.topic), so that the events after them flow. A dead
letter is named by its position there, PARTITION:OFFSET.

With the policy hold-aggregate, such an event and the later ones of its aggregate are
held in the table factlib.held_events. They are named held:NUMBER.

Examples:
  factlib dead-letter list
  factlib dead-letter show 0:17
  factlib dead-letter redrive 0:17
  factlib dead-letter redrive held:5

Exit codes: those of factlib --help; 4 if a letter was refused again.";

const LIST_HELP: &str = "\
Columns: position, time parked, source topic, event id, key, event type, bytes, time redriven,
error. If the output is not a terminal, tabs separate them.

Held aggregates come first, one per line. Columns: first event, held since, aggregate, number of
events, topic, event id and error of the first event.

Examples:
  factlib dead-letter list --since 1h
  factlib dead-letter list --topic shop.user --limit 10
  factlib dead-letter list --topic ''      letters without a source topic
  factlib dead-letter list --json | jq -r 'select(.redriven_at == null).position'

Exit codes: those of factlib --help.";

const SHOW_HELP: &str = "\
Examples:
  factlib dead-letter show 0:17
  factlib dead-letter show 0:17 --raw > event.bin

Exit codes: those of factlib --help; 2 if there is no such letter.";

const REDRIVE_HELP: &str = "\
Sends the original bytes, key and headers to the source topic, one letter at a time, in the order
in which they were parked; the header redriven_from holds the letter's position. The table
factlib.redriven records redriven letters, so that none is sent twice. A crash can repeat one
letter, with the same event id.

Redriven events arrive after events of their aggregate that were delivered in the meantime:
consumers see them late, but in order among each other.

A held event is sent with its whole line, in order, up to 500 at a time, which a crash can repeat.
With the last one, the aggregate flows again. --to-topic is for the first event of a line.

A letter that is refused again is reported; the others are still sent, except those behind it in
its line.

Examples:
  factlib dead-letter redrive --all --dry-run
  factlib dead-letter redrive --all --topic shop.user
  factlib dead-letter redrive 0:17 0:19
  factlib dead-letter redrive 0:3 --to-topic shop.repaired
  factlib dead-letter redrive held:5

Exit codes: those of factlib --help; 4 if a letter was refused again.";

const DROP_HELP: &str = "\
The event is never sent. Later events of its aggregate stay held until they are redriven; if there
are none, the aggregate flows again. Letters in the dead-letter topic can't be dropped: its
retention deletes them.

Examples:
  factlib dead-letter show held:5
  factlib dead-letter drop held:5
  factlib dead-letter redrive held:6

Exit codes: those of factlib --help; 2 if there is no such event.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    pub command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List dead letters, one per line, the oldest of each partition first
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Show one dead letter with its headers, event and payload
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Send dead letters to their source topics again
    #[command(after_help = REDRIVE_HELP)]
    Redrive(RedriveArgs),
    /// Remove one held event without sending it
    #[command(after_help = DROP_HELP)]
    Drop(DropArgs),
}

#[derive(Debug, Args)]
pub struct DropArgs {
    /// Position of the event
    #[arg(value_name = "held:NUMBER", value_parser = held)]
    pub position: LetterPosition,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// List at most N letters
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Only letters with this source topic
    #[arg(long, value_name = "SOURCE")]
    pub topic: Option<String>,
    /// Only letters parked within this time, such as 90s, 1h or 2days
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Position of the letter
    #[arg(value_name = "POSITION")]
    pub position: LetterPosition,
    /// Write only the bytes of the event
    #[arg(long)]
    pub raw: bool,
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Positions of the letters
    #[arg(value_name = "POSITION", required_unless_present = "all")]
    pub positions: Vec<LetterPosition>,
    /// Redrive all letters that were not redriven yet
    #[arg(long, conflicts_with = "positions")]
    pub all: bool,
    /// Only letters with this source topic
    #[arg(long, value_name = "SOURCE", conflicts_with = "positions")]
    pub topic: Option<String>,
    /// Send all letters to this topic instead of their source topics
    #[arg(long, value_name = "TOPIC")]
    pub to_topic: Option<String>,
    /// Also send letters that were redriven before
    #[arg(long)]
    pub again: bool,
    /// Print what would be sent to which topic, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn held(text: &str) -> Result<LetterPosition, String> {
    let position: LetterPosition =
        text.parse().map_err(|error: factlib::Error| error.to_string())?;
    match position.is_held() {
        true => Ok(position),
        false => Err("only held events can be dropped: expected held:NUMBER".into()),
    }
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
            "redrive held:1 0:2",
            "show held:1",
            "drop held:1",
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
            "redrive held:a",
            "drop 0:1",
            "drop",
        ] {
            assert!(parse(line).is_err(), "{line} is taken");
        }
    }
}
