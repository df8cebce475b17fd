//! The lines of held events, as `factlib dead-letter list` prints them: one for each aggregate.

use std::time::SystemTime;

use factlib::dead_letter::HeldLine;
use serde_json::json;

use super::args::ListArgs;
use crate::text::{plain, time};

/// Headings of [`columns`].
pub const HEADINGS: [&str; 7] =
    ["FIRST", "HELD SINCE", "AGGREGATE", "EVENTS", "TOPIC", "EVENT ID", "ERROR"];

/// Minimum widths of the columns on a terminal; the error takes the rest of the line.
pub const WIDTHS: [usize; 6] = [10, 20, 24, 6, 16, 36];

/// True if the options select the line.
pub fn takes(args: &ListArgs, line: &HeldLine) -> bool {
    let since = args.since.and_then(|ago| SystemTime::now().checked_sub(ago));
    args.topic.as_ref().is_none_or(|topic| *topic == line.topic)
        && since.is_none_or(|since| line.since >= since)
}

pub fn columns(line: &HeldLine) -> [String; 7] {
    [
        line.first.to_string(),
        time(line.since),
        plain(&format!("{}/{}", line.aggregate_type, line.aggregate_id)),
        line.events.to_string(),
        plain(&line.topic),
        plain(&line.event_id),
        plain(line.error.as_deref().unwrap_or("an earlier event was dropped")),
    ]
}

pub fn json(line: &HeldLine) -> String {
    let topic = (!line.topic.is_empty()).then_some(&line.topic);
    let line = json!({
        "position": line.first.to_string(),
        "held_since": time(line.since),
        "aggregate_type": line.aggregate_type,
        "aggregate_id": line.aggregate_id,
        "held_events": line.events,
        "source_topic": topic,
        "event_id": line.event_id,
        "redriven_at": null,
        "error": line.error,
    });
    format!("{line}\n")
}
