//! `factlib trace`: says what became of one event.

use std::process::ExitCode;

use actix_rt::System;
use clap::Args;
use factlib::{
    Result,
    audit::{RoutedTo, Trace, TraceOptions},
    config::{ARCHIVE_TABLE, Config},
};
use serde_json::json;
use slog::Logger;

use crate::{output, signals::Signals, text::millis};

pub const HELP: &str = "\
Looks for the event's row in a table of facts (the archive, or an outbox table), for its records in
the topics that its route names, and for its dead letters. It reads each topic's partition from the
row's time on, so it needs no index and costs the relay nothing.

Examples:
  factlib trace 01a20d6f-7f41-7100-929c-f9e4f1ab7eb7
  factlib trace 01a20d6f-7f41-7100-929c-f9e4f1ab7eb7 --table sales.outbox
  factlib trace 01a20d6f-7f41-7100-929c-f9e4f1ab7eb7 --no-table --topics shop.user

Exit codes: those of factlib --help; 1 if the event was neither delivered nor dropped by a route.";

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
    let is_done = !trace.records.is_empty() || trace.routing == Some(RoutedTo::Dropped);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn text(trace: &Trace, options: &TraceOptions) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text += &format!("{name:9}  {value}\n");
    line("event", &options.event_id);
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
        let redriven = if letter.is_redriven { ", redriven" } else { "" };
        let parked = millis(letter.parked_ms);
        line("parked", &format!("{} at {parked}{redriven}: {}", letter.position, letter.error));
    }
    if trace.created_at.is_some()
        && trace.records.is_empty()
        && trace.letters.is_empty()
        && trace.routing != Some(RoutedTo::Dropped)
    {
        line("delivered", "not yet: factlib status says how far the relay is");
    }
    text
}
