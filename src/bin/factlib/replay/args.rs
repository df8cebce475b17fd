//! The command line of `factlib replay`.

use std::time::{Duration, SystemTime};

use clap::Args;
use factlib::{config::ARCHIVE_TABLE, replay::Selection};
use humantime_serde::re::humantime::{parse_duration, parse_rfc3339_weak};

pub const HELP: &str = "\
Sends the rows of a table of facts (the archive, or an outbox table) again, ordered by time and
then id, each as the record that the relay makes of it: same topic, key, value and headers except
for the LSN, and one more header, factlib_replay, with the id of this run. The relay may run at
the same time. Brokers that are out of reach are waited for.

A replay that ends early prints the last row it sent and continues with --after ID; records in
flight are then sent twice. SIGTERM or SIGINT first waits for them, within
pipeline.drain_timeout; a second signal does not. Rows that are not valid events are reported and
skipped; a record that Kafka refuses ends the replay.

Examples:
  factlib replay --since 2h --dry-run
  factlib replay --since 2026-11-01T00:00:00Z --until 2026-11-02T00:00:00Z
  factlib replay --aggregate user:u1 --to-topic shop.user.repaired
  factlib replay --table sales.outbox --event-type order.placed --limit 100 --json

Exit codes: those of factlib --help; 4 if a row is not a valid event or Kafka refuses a record,
7 if a signal stopped it.";

/// Rows of a table of facts.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// Table to read, schema.table
    #[arg(long, value_name = "NAME", default_value = ARCHIVE_TABLE)]
    pub table: String,
    /// Only rows from this time on: RFC 3339 (UTC), or an age such as 90s, 1h or 2days
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<SystemTime>,
    /// Only rows before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<SystemTime>,
    /// Only rows of one aggregate, or of all aggregates of a type
    #[arg(long, value_name = "TYPE[:ID]")]
    pub aggregate: Option<String>,
    /// Only rows of one event type
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Only rows after this one, to continue a replay that ended early
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// Replay at most N rows
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Send all records to this topic instead of their own topics
    #[arg(long, value_name = "TOPIC")]
    pub to_topic: Option<String>,
    /// Print what would be sent to which topic, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the outcome as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl RowArgs {
    pub fn selection(&self) -> Selection {
        let (aggregate_type, aggregate_id) = match &self.aggregate {
            None => (None, None),
            Some(aggregate) => match aggregate.split_once(':') {
                Some((kind, id)) => (Some(kind.to_owned()), Some(id.to_owned())),
                None => (Some(aggregate.clone()), None),
            },
        };
        let mut selection = Selection::default();
        (selection.since, selection.until) = (self.since, self.until);
        (selection.aggregate_type, selection.aggregate_id) = (aggregate_type, aggregate_id);
        selection.event_type = self.event_type.clone();
        selection
    }
}

impl ReplayArgs {
    pub fn selection(&self) -> Selection {
        let mut selection = self.rows.selection();
        (selection.after, selection.limit) = (self.after.clone(), self.limit);
        selection
    }
}

fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(at) = parse_rfc3339_weak(text) {
        return Ok(at);
    }
    let ago: Duration = parse_duration(text)
        .map_err(|_| "expected a time such as 2026-11-24T07:00:00Z, or an age such as 2h")?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| "that is before all time".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_an_age() {
        let at = time("2001-09-09T01:46:40Z").expect("a time");
        assert_eq!(at, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(time("2001-09-09 01:46:40"), Ok(at));
        let age = time("2h").expect("an age").elapsed().expect("past");
        assert!((7_200..7_260).contains(&age.as_secs()));
        assert!(time("yesterday").is_err());
    }
}
