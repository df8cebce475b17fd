//! What a replay did: on the terminal while it goes on, and at its end.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use humantime_serde::re::humantime::format_duration;
use serde::Serialize;

/// Counts, by topic.
pub struct Summary {
    selected: u64,
    rows: u64,
    without_event: u64,
    topics: BTreeMap<String, Span>,
    started: Instant,
    shown: Instant,
}

/// How many records, and of which times.
#[derive(Serialize)]
struct Span {
    records: u64,
    first: String,
    last: String,
}

impl Summary {
    /// `selected` rows are to come.
    pub fn new(selected: u64) -> Self {
        let now = Instant::now();
        let topics = BTreeMap::new();
        Summary { selected, rows: 0, without_event: 0, topics, started: now, shown: now }
    }

    pub fn count(&mut self, topic: &str, created_at: &str) {
        self.rows += 1;
        match self.topics.get_mut(topic) {
            Some(span) => {
                span.records += 1;
                created_at.clone_into(&mut span.last);
            }
            None => {
                let (first, last) = (created_at.to_owned(), created_at.to_owned());
                self.topics.insert(topic.to_owned(), Span { records: 1, first, last });
            }
        }
    }

    pub fn passed_over(&mut self) {
        self.without_event += 1;
    }

    pub fn selected(&self) -> u64 {
        self.selected
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn without_event(&self) -> u64 {
        self.without_event
    }

    /// Shows how far it is, once a second on a terminal.
    pub fn show(&mut self, done: u64) {
        if self.shown.elapsed() >= Duration::from_secs(1) && stderr().is_terminal() {
            self.shown = Instant::now();
            let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            let left = self.selected.saturating_sub(done) as f64 / rate.max(0.001);
            let left = Duration::from_secs(left.min(1e9) as u64);
            let (all, left) = (self.selected, format_duration(left));
            eprint!("\r\x1b[K{done} of {all} replayed, {rate:.0}/s, {left} left ");
        }
    }

    pub fn clear(&self) {
        if self.shown > self.started {
            // Carriage return, erase to the end of the line.
            eprint!("\r\x1b[K");
        }
    }

    /// One line a topic.
    pub fn lines(&self, dry_run: bool) -> String {
        let mut text = String::new();
        let would = if dry_run { "would go" } else { "went" };
        for (topic, Span { records, first, last }) in &self.topics {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{records} {would} to {topic}, of {first} to {last}");
        }
        text
    }

    /// One line of JSON; `sent` is none where nothing was to be sent.
    pub fn json(
        &self,
        run: &str,
        sent: Option<u64>,
        last_id: Option<&str>,
        error: Option<String>,
    ) -> String {
        let Summary { selected, without_event, topics, .. } = self;
        let object = serde_json::json!({
            "run": sent.map(|_| run), "dry_run": sent.is_none(), "selected": selected,
            "replayed": sent.unwrap_or_default(), "no_events": without_event,
            "topics": topics, "last_id": last_id, "error": error,
        });
        format!("{object}\n")
    }
}
