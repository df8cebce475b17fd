//! `factlib tail`: prints events as they commit, as text or JSON.

use actix_rt::System;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args as ClapArgs;
use factlib::{
    Event, Result,
    config::Config,
    proto::OutboxEvent,
    tail::{Filter, Tail},
};
use serde_json::{Value, json};
use slog::Logger;

use crate::{
    output,
    signals::Signals,
    text::{millis, plain, shown},
};

pub const HELP: &str = "\
Prints each event that commits from now on: commit time, event type, aggregate and payload. It
reads the write-ahead log through its own temporary slot, so that it disturbs no relay and needs
no Kafka; the publication must exist. It uses one slot and one WAL sender of the server, and
releases both when it ends.

A filter is a text, a glob or a /regular expression/, as in a [[route]]. With --json, each event
is one line with payload, or payload_base64 if that is not JSON, as `factlib emit` reads them.

Examples:
  factlib tail
  factlib tail --aggregate-type order --event-type 'order.*'
  factlib tail --json --count 10 | jq .payload

Exit codes: those of factlib --help; 0 after Ctrl-C, SIGTERM or --count.";

#[derive(Debug, ClapArgs)]
pub struct TailArgs {
    /// Only events of this aggregate type
    #[arg(long, value_name = "PATTERN")]
    pub aggregate_type: Option<String>,
    /// Only events of this aggregate
    #[arg(long, value_name = "PATTERN")]
    pub aggregate_id: Option<String>,
    /// Only events of this type
    #[arg(long, value_name = "PATTERN")]
    pub event_type: Option<String>,
    /// End after N events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print JSON, one event per line
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &TailArgs, config: &Config, log: &Logger) -> Result<()> {
    let filter = Filter::new(
        args.aggregate_type.as_deref(),
        args.aggregate_id.as_deref(),
        args.event_type.as_deref(),
    )?;
    System::new().block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            _ = signals.next() => Ok(()),
            ended = watch(args, &filter, config, log) => ended,
        }
    })
}

async fn watch(args: &TailArgs, filter: &Filter, config: &Config, log: &Logger) -> Result<()> {
    let mut tail = Tail::open(config, log).await?;
    eprintln!("printing events from {} on; Ctrl-C ends it", tail.position());
    let mut left = args.count;
    while left != Some(0) {
        let event = tail.next().await?;
        if !filter.takes(&event) {
            continue;
        }
        let line = if args.json { json_line(&event).to_string() } else { text_line(&event) };
        if !output::print_bytes(format!("{line}\n").as_bytes())? {
            return Ok(());
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn text_line(event: &Event) -> String {
    let time = committed(event);
    match decoded(event) {
        Ok(whole) => format!(
            "{time} {} {}/{} {}",
            plain(event.event_type()),
            plain(event.aggregate_type()),
            plain(event.aggregate_id()),
            shown(&whole.payload)
        ),
        Err(error) => format!("{time} invalid event: {}", plain(&error.to_string())),
    }
}

fn json_line(event: &Event) -> Value {
    let mut line = json!({
        "committed_at": committed(event),
        "lsn": event.lsn().to_string(),
        "xid": event.transaction().map(|transaction| transaction.xid),
    });
    let mut add = |name: &str, value: Value| line[name] = value;
    match decoded(event) {
        Ok(OutboxEvent { id, payload, metadata, created_at, trace_info, .. }) => {
            add("id", id.into());
            add("aggregate_type", event.aggregate_type().into());
            add("aggregate_id", event.aggregate_id().into());
            add("event_type", event.event_type().into());
            add("created_at", millis(created_at / 1_000_000).into());
            add("metadata", metadata.into_iter().collect());
            if let Some(trace) = trace_info {
                add("trace_id", trace.trace_id.into());
                add("span_id", trace.span_id.into());
            }
            match serde_json::from_slice(&payload) {
                Ok(json) => add("payload", json),
                Err(_) => add("payload_base64", STANDARD.encode(&payload).into()),
            }
        }
        Err(error) => {
            add("refused", error.to_string().into());
            add("payload_base64", STANDARD.encode(event.raw()).into());
        }
    }
    line
}

/// Decodes the event, or returns the reason why it is invalid.
fn decoded(event: &Event) -> Result<OutboxEvent> {
    match event.refusal() {
        Some(refusal) => Err(refusal.error.clone()),
        None => event.decode(),
    }
}

fn committed(event: &Event) -> String {
    // A message outside any transaction is visible as soon as it is emitted.
    let ns = event.transaction().map_or(event.created_at_ns(), |info| info.commit_time_ns);
    millis(ns / 1_000_000)
}
