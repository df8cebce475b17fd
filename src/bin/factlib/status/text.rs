//! Formats a relay's status as tables for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;
use serde_json::{Map, Value};

use crate::{output, text::time};

pub fn text(status: &Value) -> String {
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let word = |name: &str| status[name].as_str().unwrap_or("none").to_owned();
    let state = match status["error"].as_str().or(status["stopped_by"].as_str()) {
        Some(error) => format!("{}: {error}", word("state")),
        None => word("state"),
    };
    let mut lines = vec![
        ("state", state),
        ("up for", duration(number("uptime_seconds"))),
        ("received", word("received_lsn")),
        ("delivered", word("delivered_lsn")),
        ("saved", word("saved_lsn")),
        ("confirmed", word("confirmed_lsn")),
        ("lag", lag(&status["lag"])),
        ("retained WAL", retained(status)),
        ("slot lasts", lasts(status)),
    ];
    if let Some(holder) = status["retained_wal_waits_for"].as_str() {
        lines.push(("kept for", holder.to_owned()));
    }
    for problem in status["publication_problems"].as_array().into_iter().flatten() {
        let part = |name: &str| problem[name].as_str().unwrap_or_default();
        lines.push(("published", format!("{} ({})", part("problem"), part("remedy"))));
    }
    for rows in status["unpublished"].as_array().into_iter().flatten() {
        let part = |name: &str| rows[name].as_str().unwrap_or("unknown");
        let range = format!("{} to {}", part("from_lsn"), part("to_lsn"));
        let text = format!("rows of {} from {range}: {}", part("table"), part("replay"));
        lines.push(("not published", text));
    }
    let (events, dead) = (number("events"), number("dead_letters"));
    let read = number("events_read");
    lines.push(("events", format!("{events} delivered, {read} read, {dead} dead letters")));
    if let Some(since) = status["held_since"].as_u64() {
        let (held, aggregates) = (number("held_events"), number("held_aggregates"));
        let since = time(UNIX_EPOCH + Duration::from_secs(since));
        let text = format!("{held} events of {aggregates} aggregates, the oldest since {since}");
        lines.push(("held in table", text));
    }
    lines.push(("rate", format!("{:.1} events/s", float(&status["events_per_second"]))));
    let (used, window) = (number("in_flight_bytes"), number("window_bytes"));
    lines.push(("in flight", format!("{} of {}", bytes(used), bytes(window))));
    if let Some(condition) = status["gate_waits_for"].as_str() {
        let held = bytes(number("gate_bytes"));
        lines.push(("held", format!("{held}, waiting for {condition}")));
    }
    lines.push(("generation", generation(status)));
    if let Some(error) = status["kafka_error"].as_str() {
        lines.push(("Kafka", error.to_owned()));
    }
    output::table(&lines) + &actors(status) + &topics(status) + &brokers(status)
}

fn lag(lag: &Value) -> String {
    let number = |name: &str| lag[name].as_u64().unwrap_or_default();
    let time = match lag["seconds"].as_f64() {
        Some(seconds) => format!("{seconds:.1} s"),
        None => "unknown time".into(),
    };
    format!("{} of WAL, {} events, {time}", bytes(number("bytes")), number("events"))
}

fn retained(status: &Value) -> String {
    let kept = bytes(status["retained_wal_bytes"].as_u64().unwrap_or_default());
    match float(&status["retained_wal_growth"]) {
        growth if growth >= 1.0 => format!("{kept}, growing by {}/s", whole_bytes(growth)),
        _ => kept,
    }
}

fn lasts(status: &Value) -> String {
    let Some(safe) = status["safe_wal_bytes"].as_i64() else {
        return match status["wal_end_lsn"].as_str() {
            None | Some("0/0") => "unknown: the server was not asked yet".into(),
            _ => "no max_slot_wal_keep_size: until the server's disk is full".into(),
        };
    };
    let safe = bytes(u64::try_from(safe).unwrap_or_default());
    match status["slot_lost_in_seconds"].as_u64() {
        Some(seconds) => format!("{} at this rate, {safe} of WAL", duration(seconds)),
        None => format!("{safe} of WAL"),
    }
}

fn generation(status: &Value) -> String {
    let generation = status["generation"].as_u64().unwrap_or_default();
    let errors = status["replication_errors"].as_u64().unwrap_or_default();
    format!("{generation}, replication errors {errors}")
}

fn actors(status: &Value) -> String {
    table(&["actor", "state", "waited", "restarts", "last error"], &status["actors"], |actor| {
        let restarts = actor["restarts"].as_u64().unwrap_or_default();
        vec![state(actor), waited(actor), restarts.to_string(), last_error(actor)]
    })
}

fn topics(status: &Value) -> String {
    let head = [
        "topic",
        "state",
        "events",
        "rate",
        "waiting",
        "waited",
        "partitions",
        "restarts",
        "last error",
    ];
    table(&head, &status["topics"], |topic| {
        let number = |name: &str| topic[name].as_u64().unwrap_or_default().to_string();
        let state = match (topic["paused"].as_bool(), topic["open"].as_bool()) {
            (Some(true), _) => "paused",
            _ if topic["refused"].is_string() => "refused",
            (_, Some(true)) => "open",
            _ => "not open",
        };
        let rate = format!("{:.1}/s", float(&topic["events_per_second"]));
        let error = match topic["refused"].as_str().or(topic["retrying"].as_str()) {
            Some(reason) => reason.to_owned(),
            None => last_error(topic),
        };
        let (events, waiting) = (number("events"), number("waiting"));
        let (waited, partitions) = (waited(topic), partitions(topic));
        vec![state.into(), events, rate, waiting, waited, partitions, number("restarts"), error]
    })
}

/// The number of a topic's partitions, and the number before it changed.
fn partitions(topic: &Value) -> String {
    match (topic["partitions"].as_u64(), topic["partitions_before"].as_u64()) {
        (Some(now), Some(before)) => format!("{now} (were {before})"),
        (Some(now), None) => now.to_string(),
        (None, _) => "unknown".into(),
    }
}

fn brokers(status: &Value) -> String {
    let head = ["broker", "state", "answers in", "lost requests"];
    table(&head, &status["kafka"]["brokers"], |broker| {
        let number = |name: &str| broker[name].as_u64().unwrap_or_default().to_string();
        let average = match broker["rtt_seconds"].as_f64() {
            Some(seconds) => format!("{:.1} ms", seconds * 1_000.0),
            None => "none".into(),
        };
        let state = if broker["connected"] == true { "up" } else { "down" };
        vec![state.into(), average, number("send_errors")]
    })
}

/// The state of an actor, or what it waits for.
fn state(actor: &Value) -> String {
    match actor["blocked_by"].as_str() {
        Some(blocker) => format!("waits for {blocker}"),
        None => actor["state"].as_str().unwrap_or("unknown").into(),
    }
}

/// Time that an actor or topic has waited, by reason.
fn waited(entry: &Value) -> String {
    let waits = entry["blocked_seconds"].as_object().into_iter().flatten();
    // Every topic waits for a moment while it is opened.
    let waits = waits.filter(|(_, seconds)| float(seconds) >= 1.0);
    let waits = waits.map(|(reason, seconds)| format!("{reason} {:.1} s", float(seconds)));
    let waits = waits.collect::<Vec<_>>().join(", ");
    if waits.is_empty() { "none".into() } else { waits }
}

fn last_error(entry: &Value) -> String {
    let Some(error) = entry["last_error"].as_str() else { return "none".into() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match entry["last_error_at"].as_u64() {
        Some(at) => format!("{} ago: {error}", duration(now.saturating_sub(at))),
        None => error.into(),
    }
}

/// Formats an object as aligned rows, one per entry, after an empty line; nothing if it is empty.
fn table(head: &[&str], object: &Value, row: impl Fn(&Value) -> Vec<String>) -> String {
    let Some(entries) = object.as_object().filter(|entries: &&Map<_, _>| !entries.is_empty())
    else {
        return String::new();
    };
    let rows = entries.iter().map(|(name, entry)| [vec![name.clone()], row(entry)].concat());
    format!("\n{}", output::columns(head, rows))
}

fn bytes(count: u64) -> String {
    ByteSize::b(count).to_string()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // For display.
fn whole_bytes(count: f64) -> String {
    bytes(count as u64)
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn duration(seconds: u64) -> String {
    format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_slots_remaining_time_is_shown_as_far_as_it_is_known() {
        let mut status =
            json!({ "retained_wal_bytes": 1 << 30, "retained_wal_growth": 1_048_576.0 });
        assert_eq!(retained(&status), "1.0 GiB, growing by 1.0 MiB/s");
        assert!(lasts(&status).starts_with("unknown"));
        status["wal_end_lsn"] = json!("1/0");
        assert!(lasts(&status).starts_with("no max_slot_wal_keep_size"));
        status["safe_wal_bytes"] = json!(600 << 20);
        assert_eq!(lasts(&status), "600.0 MiB of WAL");
        status["slot_lost_in_seconds"] = json!(600);
        assert_eq!(lasts(&status), "10m at this rate, 600.0 MiB of WAL");
    }

    #[test]
    fn unpublished_rows_are_shown_with_the_remedy() {
        let status = json!({
            "publication_problems": [{ "problem": "o is UNLOGGED", "remedy": "ALTER TABLE" }],
            "unpublished": [{ "table": "o", "from_lsn": "0/1", "to_lsn": "0/2", "replay": "factlib replay" }],
        });
        let text = text(&status);
        assert!(text.contains("o is UNLOGGED (ALTER TABLE)"), "{text}");
        assert!(text.contains("rows of o from 0/1 to 0/2: factlib replay"), "{text}");
    }

    #[test]
    fn a_topic_shows_its_refusal_and_its_changed_partitions() {
        let topic = json!({
            "open": true, "refused": "Invalid topic", "partitions": 8, "partitions_before": 3,
        });
        let text = topics(&json!({ "topics": { "shop.order_item": topic } }));
        let row = text.lines().last().expect("a row");
        assert!(row.starts_with("shop.order_item  refused  "), "{text}");
        assert!(row.contains("  8 (were 3)  ") && row.ends_with("  Invalid topic"), "{text}");
        assert_eq!(partitions(&json!({ "partitions": 3 })), "3");
        assert_eq!(partitions(&json!({})), "unknown");
    }

    #[test]
    fn an_actor_shows_what_it_waits_for_and_when_it_failed() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let reader = json!({
            "state": "blocked", "blocked_by": "window", "restarts": 2,
            "blocked_seconds": { "window": 1.25, "postgres": 10.0 },
            "last_error": "gone", "last_error_at": now - 3_600,
        });
        let text = actors(&json!({ "actors": { "wal_reader": reader } }));
        let (head, row) = text.trim().split_once('\n').expect("two lines");
        assert!(head.starts_with("actor       state             waited"), "{head}");
        assert!(row.starts_with("wal_reader  waits for window  "), "{row}");
        assert!(row.contains("window 1.2 s") && row.contains("postgres 10.0 s"), "{row}");
        assert!(row.contains("  2         1h") && row.ends_with(" ago: gone"), "{row}");
        assert_eq!(topics(&json!({ "topics": {} })), "");
    }
}
