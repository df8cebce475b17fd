//! `factlib audit`: holds a table of facts against the topics.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use actix_rt::System;
use clap::Args;
use factlib::{
    Result,
    audit::{Audit, AuditOptions, FaultKind, Totals},
    config::Config,
};
use humantime_serde::re::humantime::format_duration;
use serde_json::json;
use slog::Logger;

use crate::{output, replay::RowArgs, signals::Signals};

pub const HELP: &str = "\
Reads the rows of a table of facts (the archive, or an outbox table) and then the topics that they
go to, and prints each fault with the event's id, its topic and its partition:offset:

  lost             no record has the event, and it is no dead letter either
  repeated         another record of the topic has the event
  out-of-order     it comes after a later event of its aggregate
  changed-key, changed-value, changed-headers
                   the record is not the one that the relay makes of the row
  wrong-partition  it is in another partition than its key, or its route, says
  wrong-topic      it is in a topic that no route names for it
  unknown          the table has no such row, as after a phantom, or after retention

It changes nothing, and the topics may have been filled by another relay: --ignore leaves out
what that one does in another way. A row takes about 250 bytes of memory.

Examples:
  factlib audit --since 24h
  factlib audit --table outbox --id-header id --ignore changed-value,changed-headers --json

Exit codes: those of factlib --help; 1 if there is a fault.";

/// Faults of a kind that are printed, unless `--limit` says otherwise.
const LIMIT: u64 = 100;
/// Age from which a row counts as delivered, unless `--until` says otherwise.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Topics to read besides those that the rows go to
    #[arg(long, value_name = "TOPIC,…", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// Header with the event's id, if it is neither event_id nor id
    #[arg(long, value_name = "NAME")]
    pub id_header: Option<String>,
    /// Kinds of faults to leave out
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    pub ignore: Vec<FaultKind>,
    /// Print at most N faults of each kind; all are counted
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub limit: u64,
    /// Print each fault, and then the totals, as JSON objects, one per line
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: AuditArgs, config: &Config, log: &Logger) -> Result<ExitCode> {
    let mut options = AuditOptions::default();
    options.selection = args.rows.selection();
    options.selection.until = options.selection.until.or(SystemTime::now().checked_sub(GRACE));
    (options.table, options.topics) = (args.rows.table, args.topics);
    (options.id_header, options.ignored) = (args.id_header, args.ignore);
    let mut printer = Printer::new(args.limit, args.json);
    let totals = System::new().block_on(async {
        let mut tell = |found| printer.tell(found);
        Signals::new()?.or_stop(Audit::run(config, &options, log, &mut tell)).await
    });
    printer.clear();
    let totals = totals?;
    output::print(&if args.json { format!("{}\n", json!(totals)) } else { as_text(&totals) })?;
    Ok(if totals.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Prints faults as they are found, and the progress on a terminal.
struct Printer {
    limit: u64,
    json: bool,
    printed: BTreeMap<FaultKind, u64>,
    started: Instant,
    shown: Option<Instant>,
}

impl Printer {
    fn new(limit: u64, json: bool) -> Self {
        Printer { limit, json, printed: BTreeMap::new(), started: Instant::now(), shown: None }
    }

    fn tell(&mut self, found: Audit) {
        match found {
            Audit::Rows(read, all) => self.show(&format!("{read} of {all} rows read")),
            Audit::Records(topic, read) => self.show(&format!("{read} records of {topic} read")),
            Audit::Invalid(id, error) => {
                self.clear();
                output::print_error(&format!("row {id} is not a valid event: {error}"));
            }
            Audit::Fault(fault) => {
                let printed = self.printed.entry(fault.kind).or_default();
                *printed += 1;
                if *printed <= self.limit {
                    self.clear();
                    let line = if self.json { json!(fault).to_string() } else { fault.to_string() };
                    // A closed pipe shows when the totals are printed.
                    let _ = output::print(&format!("{line}\n"));
                }
            }
            _ => {}
        }
    }

    /// Shows the progress once per second.
    fn show(&mut self, progress: &str) {
        let is_due = self.shown.unwrap_or(self.started).elapsed() >= Duration::from_secs(1);
        if is_due && stderr().is_terminal() {
            self.shown = Some(Instant::now());
            let seconds = Duration::from_secs(self.started.elapsed().as_secs());
            eprint!("\r\x1b[K{progress}, {} ", format_duration(seconds));
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            // Carriage return, erase to the end of the line.
            eprint!("\r\x1b[K");
        }
    }
}

fn as_text(totals: &Totals) -> String {
    let Totals { rows, expected, without_record, invalid, parked, topics, without_id, .. } = totals;
    let read: u64 = topics.values().sum();
    let mut text = format!("{rows} rows, {expected} records expected, {read} read\n");
    // Writing to a String never fails.
    for (count, what) in [
        (without_record, "rows become no record"),
        (invalid, "rows are not valid events"),
        (parked, "are dead letters"),
        (without_id, "records have no event id"),
    ] {
        if *count > 0 {
            let _ = writeln!(text, "{count} {what}");
        }
    }
    if totals.faults.is_empty() {
        return text + "no faults\n";
    }
    for (kind, count) in &totals.faults {
        let _ = writeln!(text, "{kind:15}  {count}");
    }
    text
}
