//! Counts the rows of a replay and prints progress and the final summary.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use humantime_serde::re::humantime::format_duration;
use serde::Serialize;

/// Counts of a replay, in total and per topic.
pub struct Summary {
    selected: u64,
    rows: u64,
    invalid: u64,
    topics: BTreeMap<String, TopicCount>,
    started: Instant,
    shown: Instant,
}

/// Number of records of one topic, and the times of the first and the last.
#[derive(Serialize)]
struct TopicCount {
    records: u64,
    first: String,
    last: String,
}

impl Summary {
    /// Starts a summary of `selected` rows.
    pub fn new(selected: u64) -> Self {
        let now = Instant::now();
        let topics = BTreeMap::new();
        Summary { selected, rows: 0, invalid: 0, topics, started: now, shown: now }
    }

    pub fn count(&mut self, topic: &str, created_at: &str) {
        self.rows += 1;
        match self.topics.get_mut(topic) {
            Some(count) => {
                count.records += 1;
                created_at.clone_into(&mut count.last);
            }
            None => {
                let (first, last) = (created_at.to_owned(), created_at.to_owned());
                self.topics.insert(topic.to_owned(), TopicCount { records: 1, first, last });
            }
        }
    }

    pub fn count_invalid(&mut self) {
        self.invalid += 1;
    }

    pub fn selected(&self) -> u64 {
        self.selected
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Shows the progress on a terminal, once per second.
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

    /// One line per topic.
    pub fn lines(&self, dry_run: bool) -> String {
        let mut text = String::new();
        let verb = if dry_run { "would go" } else { "went" };
        for (topic, TopicCount { records, first, last }) in &self.topics {
            // Writing to a String never fails.
            let _ = writeln!(text, "{records} {verb} to {topic}, created {first} to {last}");
        }
        text
    }

    /// The summary as one line of JSON; `sent` is `None` for a dry run.
    pub fn json(
        &self,
        run: &str,
        sent: Option<u64>,
        last_id: Option<&str>,
        error: Option<String>,
    ) -> String {
        let Summary { selected, invalid, topics, .. } = self;
        let object = serde_json::json!({
            "run": sent.map(|_| run), "dry_run": sent.is_none(), "selected": selected,
            "replayed": sent.unwrap_or_default(), "no_events": invalid,
            "topics": topics, "last_id": last_id, "error": error,
        });
        format!("{object}\n")
    }
}
