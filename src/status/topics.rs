//! What becomes of the events of each topic, and what they wait for.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;
use slog::{Logger, warn};

use super::{
    BlockedBy, Observed, RATE_SPAN, Status, actors::Waits, observed::LATENCIES, rate::Rate,
    unix_seconds,
};
use crate::Error;

/// A topic at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct TopicStatus {
    /// Events that were delivered to it.
    pub events: u64,
    /// Events that were read for it and are not delivered.
    pub waiting: u64,
    /// Batches can be sent to it.
    pub open: bool,
    /// How often it was opened again after a failure.
    pub restarts: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// When that was, Unix seconds.
    pub last_error_at: Option<u64>,
    /// Records delivered, a second over the last ten.
    pub events_per_second: f64,
    /// What its events wait for, beside Kafka's acknowledgement.
    pub blocked_by: Option<BlockedBy>,
    /// How long they have waited in all, in seconds, by what for.
    pub blocked_seconds: BTreeMap<BlockedBy, f64>,
    /// For a handler: number of times an event was tried again after a call that failed.
    pub handler_retries: u64,
    /// It was paused, and nothing is sent to it.
    pub paused: bool,
    /// Of a handler: an event that it is to try again, and why, while there is one.
    pub retrying: Option<String>,
    /// The reason why Kafka does not take the topic, while `dead_letter.policy` decides about its
    /// events.
    pub refused: Option<String>,
    /// Number of its partitions, once that is known.
    pub partitions: Option<usize>,
    /// Number of its partitions before that changed; none if it has not changed in this process.
    pub partitions_before: Option<usize>,
    /// Events that have left it, delivered or parked.
    #[serde(skip)]
    pub(crate) finished: u64,
}

impl TopicStatus {
    /// Says how many events are not delivered to the topic, and what is known of the reason.
    pub(crate) fn undelivered(&self, name: &str) -> String {
        let open = match (&self.last_error, self.open) {
            _ if self.paused => "paused".into(),
            (_, true) => match &self.retrying {
                Some(reason) => format!("open, handler retries: {reason}"),
                None => "open".into(),
            },
            (Some(error), false) => format!("not open: {error}"),
            (None, false) => "not open".into(),
        };
        format!("topic {name} ({open}), undelivered events: {}", self.waiting)
    }
}

/// The counters behind [`TopicStatus`].
pub(super) struct Topic {
    pub status: TopicStatus,
    waits: Waits,
    pub rate: Rate,
    /// From the read to the acknowledgement, a part.
    latency: Histogram,
}

impl Default for Topic {
    fn default() -> Self {
        let mut rate = Rate::over(RATE_SPAN);
        rate.sample(0, Instant::now());
        Topic {
            status: TopicStatus::default(),
            waits: Waits::default(),
            rate,
            latency: Histogram::new(LATENCIES),
        }
    }
}

impl Topic {
    /// Times what its events wait for.
    fn time(&mut self, kafka_complains: bool, now: Instant) {
        let status = &self.status;
        let what = match status {
            TopicStatus { waiting: 0, .. } => None,
            TopicStatus { paused: true, .. } => Some(BlockedBy::Pause),
            TopicStatus { open: false, .. } => Some(BlockedBy::Topic),
            TopicStatus { retrying: Some(_), .. } => Some(BlockedBy::Handler),
            _ => kafka_complains.then_some(BlockedBy::Kafka),
        };
        self.waits.set(what, now);
    }

    pub fn snapshot(&self, now: Instant) -> TopicStatus {
        TopicStatus {
            events_per_second: self.rate.per_second().unwrap_or_default(),
            blocked_by: self.waits.what(),
            blocked_seconds: self.waits.seconds(now),
            ..self.status.clone()
        }
    }
}

impl Status {
    /// Events wait for the topic.
    pub fn waits(&self, topic: &Arc<str>, events: usize) {
        self.change(topic, |topic| topic.status.waiting += events as u64);
    }

    pub fn delivered(&self, topic: &Arc<str>, events: usize, latency: Duration) {
        let over = self.slow().kafka_error.take().is_some();
        self.handed_on(topic, events, events, latency);
        if over {
            self.change_all(|_| {});
        }
    }

    /// A part has ended, and what is not delivered of it waits elsewhere.
    pub fn handed_on(&self, topic: &Arc<str>, events: usize, delivered: usize, latency: Duration) {
        self.counts.events.fetch_add(delivered as u64, Relaxed);
        self.change(topic, |topic| {
            topic.latency.observe(latency.as_secs_f64());
            topic.status.events += delivered as u64;
            topic.status.finished += events as u64;
            topic.status.waiting = topic.status.waiting.saturating_sub(events as u64);
        });
        self.observed.tell(Observed::Latency, Some(topic), latency.as_secs_f64());
    }

    /// A handler is called again for an event: because the call failed, or because it wants
    /// the event later.
    pub fn handler_retries(&self, topic: &Arc<str>, reason: String, failed: bool) {
        if failed {
            self.failed(topic, &reason);
        }
        self.change(topic, |topic| {
            topic.status.retrying = Some(reason);
            topic.status.handler_retries += u64::from(failed);
        });
    }

    pub fn handler_goes_on(&self, topic: &Arc<str>) {
        self.change(topic, |topic| topic.status.retrying = None);
    }

    pub fn pause(&self, topic: &Arc<str>, paused: bool) {
        self.change(topic, |topic| topic.status.paused = paused);
    }

    pub fn topic_open(&self, topic: &Arc<str>) {
        self.change(topic, |topic| topic.status.open = true);
    }

    pub fn topic_failed(&self, topic: &Arc<str>, error: &Error) {
        self.failed(topic, &error.to_string());
        self.change(topic, |topic| {
            topic.status.open = false;
            topic.status.restarts += 1;
            topic.status.last_error = Some(error.to_string());
            topic.status.last_error_at = Some(unix_seconds());
        });
    }

    /// Kafka does not take the topic, or it does again.
    pub fn topic_refused(&self, topic: &Arc<str>, error: Option<&Error>) {
        if let Some(error) = error {
            self.failed(topic, &error.to_string());
        }
        let error = error.map(ToString::to_string);
        self.change(topic, |topic| topic.status.refused = error);
    }

    /// The topic has so many partitions; a change is said, as it moves aggregates.
    pub fn partitions(&self, topic: &str, count: usize, log: &Logger) {
        // One that is not here yet is of no event.
        let before = match self.slow().topics.get_mut(topic) {
            Some(Topic { status, .. }) => {
                let before = status.partitions.replace(count).filter(|before| *before != count);
                status.partitions_before = before.or(status.partitions_before);
                before
            }
            None => None,
        };
        if let Some(before) = before {
            warn!(log, "partitions of a topic have changed"; "topic" => topic, "before" => before,
                "now" => count, "remedy" => "the events of an aggregate go to another partition \
                from now on, and a consumer may see them before earlier ones: let it read on to \
                the end of the old partitions first");
        }
    }

    /// Takes the number from a client whose metadata may be old: only a larger one counts.
    pub fn partitions_grew(&self, topic: &str, count: usize, log: &Logger) {
        let known = self.slow().topics.get(topic).and_then(|topic| topic.status.partitions);
        if known.is_none_or(|known| known < count) {
            self.partitions(topic, count, log);
        }
    }

    /// How long parts took, by topic.
    pub fn latencies(&self) -> Vec<(Arc<str>, Histogram)> {
        let topics = &self.slow().topics;
        topics.iter().map(|(name, topic)| (Arc::clone(name), topic.latency.clone())).collect()
    }

    fn change(&self, topic: &Arc<str>, how: impl FnOnce(&mut Topic)) {
        let slow = &mut *self.slow();
        let complains = slow.kafka_error.is_some();
        let changed = |topic: &mut Topic| {
            how(topic);
            topic.time(complains, Instant::now());
        };
        match slow.topics.get_mut(topic) {
            Some(topic) => changed(topic),
            None => changed(slow.topics.entry(Arc::clone(topic)).or_default()),
        }
    }

    pub(super) fn change_all(&self, how: impl Fn(&mut Topic)) {
        let slow = &mut *self.slow();
        for topic in slow.topics.values_mut() {
            how(topic);
            topic.time(slow.kafka_error.is_some(), Instant::now());
        }
    }
}
