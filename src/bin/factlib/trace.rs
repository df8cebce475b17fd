//! `factlib trace`: says what became of one event.

use std::process::ExitCode;

use actix_rt::System;
use clap::Args;
use factlib::{
    Result,
    audit::{FoundLetter, RelayPosition, RoutedTo, Trace, TraceOptions},
    config::{ARCHIVE_TABLE, Config},
    receipts::{Fate, Receipt, RecordPlace},
};
use serde_json::json;
use slog::Logger;

use crate::{
    output,
    signals::Signals,
    text::{millis, plain},
};

pub const HELP: &str = "\
Answers from the event's receipt, if receipts are kept (receipts.store): where its record is, which
route drops it, or why it is parked. Without a receipt, looks for the event's row in a table of facts
(the archive, or an outbox table), and for its records in the topics that its route names. That reads
each topic's partition from the row's time on, and costs the relay nothing. In any case, says if the
event is held, a dead letter, or redriven.

Examples:
  factlib trace 01a20d6f-7f41-7100-929c-f9e4f1ab7eb7
  factlib trace 01a20d6f-7f41-7100-929c-f9e4f1ab7eb7 --table sales.outbox
  factlib trace 01a20d6f-7f41-7100-929c-f9e4f1ab7eb7 --no-table --topics shop.user

Exit codes: those of factlib --help; 1 if the event was neither delivered nor dropped by a route,
or is parked or held for a topic that it was not delivered to.";

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The event's id
    #[arg(value_name = "EVENT_ID")]
    pub event_id: String,
    /// Table to look into, schema.table
    #[arg(long, value_name = "NAME", default_value = ARCHIVE_TABLE)]
    pub table: String,
    /// Look into no table, for events that are only emitted as messages
    #[arg(long, requires = "topics")]
    pub no_table: bool,
    /// Topics to search besides those that the row goes to
    #[arg(long, value_name = "TOPIC,…", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// Header with the event's id, if it is neither event_id nor id
    #[arg(long, value_name = "NAME")]
    pub id_header: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: TraceArgs, config: &Config, log: &Logger) -> Result<ExitCode> {
    let TraceArgs { event_id, table, no_table, topics, id_header, json } = args;
    let mut options = TraceOptions::default();
    options.table = (!no_table).then_some(table);
    (options.event_id, options.topics, options.id_header) = (event_id, topics, id_header);
    let trace = System::new()
        .block_on(async { Signals::new()?.or_stop(Trace::find(config, &options, log)).await })?;
    output::print(&if json { format!("{}\n", json!(trace)) } else { text(&trace, &options) })?;
    Ok(if trace.is_done() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn text(trace: &Trace, options: &TraceOptions) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text += &format!("{name:9}  {value}\n");
    line("event", &options.event_id);
    for receipt in &trace.receipts {
        let (name, value) = of_receipt(receipt);
        line(name, &value);
    }
    if !trace.receipts.is_empty() {
        for letter in &trace.letters {
            match has_receipt(trace, letter) {
                true if letter.is_redriven => line("redriven", &letter.position),
                true => {}
                false => {
                    let (name, value) = of_letter(letter);
                    line(name, &value);
                }
            }
        }
        return text;
    }
    if let Some(store) = &trace.receipt_store {
        line("receipt", &format!("none in {store}"));
    }
    match (&trace.created_at, &options.table) {
        (Some(created_at), Some(table)) => {
            line("row", &format!("of {table}, created {created_at}"))
        }
        (_, Some(table)) => line(
            "row",
            &format!(
                "none in {table}: never committed, removed since, or only emitted as a message"
            ),
        ),
        _ => {}
    }
    match &trace.routing {
        Some(RoutedTo::Topics(topics)) => line("route", &format!("to {}", topics.join(", "))),
        Some(RoutedTo::Dropped) => line("route", "dropped by a route: factlib route --explain"),
        Some(RoutedTo::Refused(error)) => line("route", &format!("refused: {error}")),
        _ => {}
    }
    for record in &trace.records {
        let time = millis(record.timestamp_ms);
        let place = format!("{} {}:{}", record.topic, record.partition, record.offset);
        line("delivered", &format!("{place} at {time}"));
    }
    for letter in &trace.letters {
        let (name, value) = of_letter(letter);
        line(name, &value);
    }
    if trace.created_at.is_some() && trace.letters.is_empty() && !trace.is_done() {
        line("delivered", "not yet: factlib status says how far the relay is");
    }
    if let Some(relay) = &trace.relay {
        line("relay", &progress(relay));
    }
    text
}

/// The line of a receipt.
fn of_receipt(receipt: &Receipt) -> (&'static str, String) {
    let (at, lsn) = (millis(receipt.at_ms), receipt.lsn);
    let from = format!("at {at}, from {lsn} of slot {}", receipt.slot);
    match &receipt.fate {
        Fate::Delivered(record) => ("delivered", format!("{} {from}", place(record))),
        Fate::Filtered { route: Some(route), .. } => {
            ("filtered", format!("by route[{route}] {from}: factlib route --explain"))
        }
        Fate::Filtered { route: None, .. } => ("filtered", format!("no route takes it, {from}")),
        Fate::Parked { record, error, intended_topic, .. } => {
            let letter = record.as_ref().map_or("the table factlib.dead_letters".into(), place);
            let topic = intended_topic.as_deref().unwrap_or("an unknown topic");
            ("parked", format!("{letter} instead of {topic} {from}: {}", plain(error)))
        }
        _ => ("receipt", from),
    }
}

/// True if a receipt names the letter.
fn has_receipt(trace: &Trace, letter: &FoundLetter) -> bool {
    let position = |RecordPlace { partition, offset, .. }: &RecordPlace| {
        offset.map(|offset| format!("{partition}:{offset}"))
    };
    trace.receipts.iter().any(|receipt| match &receipt.fate {
        Fate::Parked { record: Some(record), .. } => {
            position(record).is_some_and(|position| position == letter.position)
        }
        _ => false,
    })
}

/// The line of a dead letter or a held event.
fn of_letter(letter: &FoundLetter) -> (&'static str, String) {
    let (position, since) = (&letter.position, millis(letter.parked_ms));
    let topic = letter.topic.as_deref().unwrap_or("an unknown topic");
    let error = plain(&letter.error);
    match (letter.is_held(), letter.redriven_ms) {
        (true, None) => ("held", format!("{position} instead of {topic} since {since}: {error}")),
        (true, Some(at)) => ("redriven", format!("{position} to {topic} at {}", millis(at))),
        (false, None) => ("parked", format!("{position} at {since}: {error}")),
        (false, Some(_)) => ("parked", format!("{position} at {since}, redriven: {error}")),
    }
}

fn place(record: &RecordPlace) -> String {
    let RecordPlace { topic, partition, offset, .. } = record;
    match offset {
        Some(offset) => format!("{topic} {partition}:{offset}"),
        None => {
            format!("{topic}, partition {partition}, at an offset that the broker had forgotten,")
        }
    }
}

/// What the relay's position says about an event that was not found.
fn progress(RelayPosition { slot, confirmed, wal_end, .. }: &RelayPosition) -> String {
    let behind = wal_end.distance_from(*confirmed);
    match behind {
        0 => format!("slot {slot} is at the end of the WAL: nothing is left to read"),
        _ => format!(
            "slot {slot} has confirmed {confirmed}, {behind} bytes before the end of the WAL: \
             a later event is not yet read, or in flight"
        ),
    }
}
