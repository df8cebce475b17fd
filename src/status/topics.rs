//! State of each topic: its events delivered and waiting, the cause of a wait, and its failures.

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
    /// Events delivered to it.
    pub events: u64,
    /// Events that were read for it and are not delivered.
    pub waiting: u64,
    /// True while batches can be sent to it.
    pub open: bool,
    /// Number of failures after which it was reopened.
    pub restarts: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// Time of the last failure, Unix seconds.
    pub last_error_at: Option<u64>,
    /// Records delivered per second, over the last ten seconds.
    pub events_per_second: f64,
    /// What its events wait for, other than Kafka's acknowledgement.
    pub blocked_by: Option<BlockedBy>,
    /// Total time waited, in seconds, by cause.
    pub blocked_seconds: BTreeMap<BlockedBy, f64>,
    /// For a handler: number of retries after a failed call.
    pub handler_retries: u64,
    /// True while it is paused, so that nothing is sent to it.
    pub paused: bool,
    /// For a handler: the event that is being retried, and the reason.
    pub retrying: Option<String>,
    /// The reason why Kafka refuses the topic, while `dead_letter.policy` applies to its events.
    pub refused: Option<String>,
    /// Number of partitions, once known.
    pub partitions: Option<usize>,
    /// Number of partitions before it last changed; none if it has not changed in this process.
    pub partitions_before: Option<usize>,
    /// The next offset of each former partition when the relay began to use the present number of
    /// partitions: records before were mapped to the former ones. None if unknown, and with
    /// `kafka.on_partitions_added = "warn"`.
    pub partition_seam: Option<Vec<i64>>,
    /// Events that are done, delivered or parked.
    #[serde(skip)]
    pub(crate) finished: u64,
}

impl TopicStatus {
    /// Says how many events are undelivered, and the known reason.
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
    /// Time from read to acknowledgement of each part.
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
    /// Updates the stopwatch for what its events wait for.
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
            blocked_by: self.waits.cause(),
            blocked_seconds: self.waits.seconds(now),
            ..self.status.clone()
        }
    }
}

impl Status {
    /// Notes events that are waiting for delivery.
    pub fn waits(&self, topic: &Arc<str>, events: usize) {
        self.change(topic, |topic| topic.status.waiting += events as u64);
    }

    pub fn delivered(&self, topic: &Arc<str>, events: usize, latency: Duration) {
        let over = self.locked().kafka_error.take().is_some();
        self.part_finished(topic, events, events, latency);
        if over {
            self.change_all(|_| {});
        }
    }

    /// Notes a finished part. Its events that were not delivered are waiting elsewhere.
    pub fn part_finished(
        &self,
        topic: &Arc<str>,
        events: usize,
        delivered: usize,
        latency: Duration,
    ) {
        self.counts.events.fetch_add(delivered as u64, Relaxed);
        self.change(topic, |topic| {
            topic.latency.observe(latency.as_secs_f64());
            topic.status.events += delivered as u64;
            topic.status.finished += events as u64;
            topic.status.waiting = topic.status.waiting.saturating_sub(events as u64);
        });
        self.observed.notify(Observed::Latency, Some(topic), latency.as_secs_f64());
    }

    /// Notes that a handler is called again for an event: because the call failed, or because it asked
    /// for the event later.
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

    /// Notes that Kafka refuses the topic, or accepts it again.
    pub fn topic_refused(&self, topic: &Arc<str>, error: Option<&Error>) {
        if let Some(error) = error {
            self.failed(topic, &error.to_string());
        }
        let error = error.map(ToString::to_string);
        self.change(topic, |topic| topic.status.refused = error);
    }

    /// Notes the number of partitions, and warns of a change, which moves aggregates.
    pub fn partitions(&self, topic: &str, count: usize, log: &Logger) {
        // A topic that is not here has no events yet.
        let before = match self.locked().topics.get_mut(topic) {
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

    /// Notes the number of partitions before this process, unless it knows a number already.
    pub fn partitions_before(&self, topic: &str, count: usize) {
        if let Some(topic) = self.locked().topics.get_mut(topic) {
            topic.status.partitions.get_or_insert(count);
        }
    }

    /// Notes the next offsets of the former partitions when added ones are used.
    pub fn partition_seam(&self, topic: &str, seam: Option<Vec<i64>>) {
        if let Some(topic) = self.locked().topics.get_mut(topic) {
            topic.status.partition_seam = seam;
        }
    }

    /// Notes the number from a client whose metadata may be old: only a larger one counts.
    pub fn partitions_grew(&self, topic: &str, count: usize, log: &Logger) {
        let known = self.locked().topics.get(topic).and_then(|topic| topic.status.partitions);
        if known.is_none_or(|known| known < count) {
            self.partitions(topic, count, log);
        }
    }

    /// Latencies of parts, by topic.
    pub fn latencies(&self) -> Vec<(Arc<str>, Histogram)> {
        let topics = &self.locked().topics;
        topics.iter().map(|(name, topic)| (Arc::clone(name), topic.latency.clone())).collect()
    }

    fn change(&self, topic: &Arc<str>, how: impl FnOnce(&mut Topic)) {
        let locked = &mut *self.locked();
        let complains = locked.kafka_error.is_some();
        let changed = |topic: &mut Topic| {
            how(topic);
            topic.time(complains, Instant::now());
        };
        match locked.topics.get_mut(topic) {
            Some(topic) => changed(topic),
            None => changed(locked.topics.entry(Arc::clone(topic)).or_default()),
        }
    }

    pub(super) fn change_all(&self, how: impl Fn(&mut Topic)) {
        let locked = &mut *self.locked();
        for topic in locked.topics.values_mut() {
            how(topic);
            topic.time(locked.kafka_error.is_some(), Instant::now());
        }
    }
}
