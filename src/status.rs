//! What a pipeline is doing, for whoever asks: counters that the actors write
//! once a batch and [`PipelineStatus`], a copy of them at one moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;
use tokio::sync::watch;

use crate::{Error, Lsn, messages::ByteWindow};

/// Bounds of what Kafka may take for a part, in seconds: from a local broker to an outage.
const LATENCIES: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// Where a pipeline is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum PipelineState {
    /// Connecting and checking positions.
    #[default]
    Starting,
    /// Reading and delivering.
    Running,
    /// Another instance reads the slot; this one takes over when it ends.
    StandingBy {
        /// Who has the slot, as the server says it.
        error: String,
    },
    /// Failed; the next generation starts after a pause.
    Retrying {
        /// What it waits for to become possible again.
        error: String,
    },
    /// Reading has ended; what is in flight is being finished.
    Draining,
    /// Over.
    Stopped,
}

/// A pipeline at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: PipelineState,
    /// Which life of the reader; counts from 1.
    pub generation: u64,
    /// End of the WAL that the server has sent or reported.
    pub received_lsn: Lsn,
    /// Everything up to here is delivered and saved.
    pub saved_lsn: Lsn,
    /// Everything up to here PostgreSQL was told to forget.
    pub confirmed_lsn: Lsn,
    /// WAL that the server kept for the slot when it was last asked, in bytes.
    pub retained_wal_bytes: u64,
    /// What it is kept for, while that is more than `postgres.retained_wal_warning`.
    pub retained_wal_waits_for: Option<String>,
    /// Events that were read from the WAL, by this process; again after a failure of the chain.
    pub events_read: u64,
    /// Records that were delivered, by this process: of an event, one for each topic.
    pub events: u64,
    /// Events that a route dropped or `kafka.unrouted` ignores, by this process.
    pub events_filtered: u64,
    /// Events that went to the dead letters, by this process.
    pub dead_letters: u64,
    /// Kafka transactions that were committed; none without exactly-once.
    pub transactions: u64,
    /// How long the last one took to commit, in seconds.
    pub transaction_commit_seconds: f64,
    /// Bytes between the WAL and the acknowledgement.
    pub in_flight_bytes: usize,
    /// The most that these may be.
    pub window_bytes: usize,
    /// Failures of the replication connection, or of making one.
    pub replication_errors: u64,
    /// Delivered rows that `retention` removed, by this process.
    pub retention_removed: u64,
    /// Failures to remove such rows.
    pub retention_errors: u64,
    /// When they were last looked for, Unix seconds; 0 for never.
    pub retention_last_run: u64,
    /// How often an actor failed and was started again, by its name.
    pub restarts: BTreeMap<&'static str, u64>,
    /// What the Kafka client complained of last, if nothing was delivered since.
    pub kafka_error: Option<String>,
    /// Topics that had events, by name.
    pub topics: BTreeMap<String, TopicStatus>,
}

impl PipelineStatus {
    /// Which topics have events that are not delivered, and what is known of why.
    pub(crate) fn undelivered(&self) -> String {
        let mut reasons: Vec<String> = Vec::new();
        for (name, topic) in self.topics.iter().filter(|(_, topic)| topic.waiting > 0) {
            let open = match (&topic.last_error, topic.open) {
                _ if topic.paused => "paused".into(),
                (_, true) => match &topic.retrying {
                    Some(reason) => format!("open, handler retries: {reason}"),
                    None => "open".into(),
                },
                (Some(error), false) => format!("not open: {error}"),
                (None, false) => "not open".into(),
            };
            reasons.push(format!("topic {name} ({open}), undelivered events: {}", topic.waiting));
        }
        reasons.extend(self.kafka_error.as_ref().map(|error| format!("Kafka: {error}")));
        reasons.join("; ")
    }
}

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
    /// It was paused, and nothing is sent to it.
    pub paused: bool,
    /// Of a handler: an event that it is to try again, and why, while there is one.
    pub retrying: Option<String>,
}

/// The counters behind [`PipelineStatus`]; shared by all actors of a pipeline.
pub(crate) struct Status {
    generation: AtomicU64,
    received_lsn: AtomicU64,
    saved_lsn: AtomicU64,
    confirmed_lsn: AtomicU64,
    retained_wal: AtomicU64,
    events_read: AtomicU64,
    events: AtomicU64,
    events_filtered: AtomicU64,
    dead_letters: AtomicU64,
    transactions: AtomicU64,
    commit_us: AtomicU64,
    replication_errors: AtomicU64,
    retention_removed: AtomicU64,
    retention_errors: AtomicU64,
    retention_last_run: AtomicU64,
    window: ByteWindow,
    state: watch::Sender<PipelineState>,
    slow: Mutex<Slow>,
}

/// What changes rarely, or once a batch and topic.
#[derive(Default)]
struct Slow {
    retained_wal_waits_for: Option<String>,
    restarts: BTreeMap<&'static str, u64>,
    kafka_error: Option<String>,
    topics: BTreeMap<Arc<str>, Topic>,
}

struct Topic {
    status: TopicStatus,
    /// From the read to the acknowledgement, a part.
    latency: Histogram,
}

impl Default for Topic {
    fn default() -> Self {
        Topic { status: TopicStatus::default(), latency: Histogram::new(LATENCIES) }
    }
}

impl Status {
    pub fn new(window: ByteWindow) -> Self {
        Status {
            generation: AtomicU64::new(0),
            received_lsn: AtomicU64::new(0),
            saved_lsn: AtomicU64::new(0),
            confirmed_lsn: AtomicU64::new(0),
            retained_wal: AtomicU64::new(0),
            events_read: AtomicU64::new(0),
            events: AtomicU64::new(0),
            events_filtered: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            commit_us: AtomicU64::new(0),
            replication_errors: AtomicU64::new(0),
            retention_removed: AtomicU64::new(0),
            retention_errors: AtomicU64::new(0),
            retention_last_run: AtomicU64::new(0),
            window,
            state: watch::Sender::default(),
            slow: Mutex::default(),
        }
    }

    /// For a Kafka client without a pipeline: nobody looks.
    pub fn unwatched() -> Arc<Self> {
        Arc::new(Status::new(ByteWindow::new(1)))
    }

    pub fn snapshot(&self) -> PipelineStatus {
        let slow = self.slow();
        PipelineStatus {
            state: self.state.borrow().clone(),
            generation: self.generation.load(Relaxed),
            received_lsn: Lsn::new(self.received_lsn.load(Relaxed)),
            saved_lsn: Lsn::new(self.saved_lsn.load(Relaxed)),
            confirmed_lsn: Lsn::new(self.confirmed_lsn.load(Relaxed)),
            retained_wal_bytes: self.retained_wal.load(Relaxed),
            retained_wal_waits_for: slow.retained_wal_waits_for.clone(),
            events_read: self.events_read.load(Relaxed),
            events: self.events.load(Relaxed),
            events_filtered: self.events_filtered.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            transactions: self.transactions.load(Relaxed),
            transaction_commit_seconds: self.commit_us.load(Relaxed) as f64 / 1e6,
            in_flight_bytes: self.window.used(),
            window_bytes: self.window.size(),
            replication_errors: self.replication_errors.load(Relaxed),
            retention_removed: self.retention_removed.load(Relaxed),
            retention_errors: self.retention_errors.load(Relaxed),
            retention_last_run: self.retention_last_run.load(Relaxed),
            restarts: slow.restarts.clone(),
            kafka_error: slow.kafka_error.clone(),
            topics: slow
                .topics
                .iter()
                .map(|(name, topic)| (name.to_string(), topic.status.clone()))
                .collect(),
        }
    }

    /// How long parts took, by topic.
    pub fn latencies(&self) -> Vec<(Arc<str>, Histogram)> {
        let topics = &self.slow().topics;
        topics.iter().map(|(name, topic)| (Arc::clone(name), topic.latency.clone())).collect()
    }

    pub fn set_state(&self, state: PipelineState) {
        self.state.send_if_modified(|present| {
            let changed = *present != state;
            *present = state;
            changed
        });
    }

    /// The state, and each change of it.
    pub fn subscribe(&self) -> watch::Receiver<PipelineState> {
        self.state.subscribe()
    }

    /// A new reader; unless it `continues`, what the one before had read is read again.
    pub fn set_generation(&self, generation: u64, continues: bool) {
        self.generation.store(generation, Relaxed);
        if continues {
            return;
        }
        self.slow().topics.values_mut().for_each(|topic| topic.status.waiting = 0);
    }

    pub fn replication_failed(&self) {
        self.replication_errors.fetch_add(1, Relaxed);
    }

    pub fn actor_failed(&self, actor: &'static str) {
        *self.slow().restarts.entry(actor).or_default() += 1;
    }

    pub fn kafka_trouble(&self, error: String) {
        self.slow().kafka_error = Some(error);
    }

    pub fn received(&self, lsn: Lsn) {
        self.received_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    pub fn saved(&self, lsn: Lsn) {
        self.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    pub fn confirmed(&self, lsn: Lsn) {
        self.confirmed_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    pub fn retained_wal(&self, bytes: u64, waits_for: Option<String>) {
        self.retained_wal.store(bytes, Relaxed);
        self.slow().retained_wal_waits_for = waits_for;
    }

    /// Events were read, of which so many are not sent.
    pub fn read(&self, events: usize, filtered: usize) {
        self.events_read.fetch_add(events as u64, Relaxed);
        self.events_filtered.fetch_add(filtered as u64, Relaxed);
    }

    pub fn delivered(&self, topic: &Arc<str>, events: usize, latency: Duration) {
        self.events.fetch_add(events as u64, Relaxed);
        let mut slow = self.slow();
        slow.kafka_error = None;
        change(&mut slow, topic, |topic| {
            topic.latency.observe(latency.as_secs_f64());
            topic.status.events += events as u64;
            topic.status.waiting = topic.status.waiting.saturating_sub(events as u64);
        });
    }

    /// A part has ended, and what is not delivered of it waits elsewhere.
    pub fn handed_on(&self, topic: &Arc<str>, events: usize, delivered: usize, latency: Duration) {
        self.events.fetch_add(delivered as u64, Relaxed);
        change(&mut self.slow(), topic, |topic| {
            topic.latency.observe(latency.as_secs_f64());
            topic.status.events += delivered as u64;
            topic.status.waiting = topic.status.waiting.saturating_sub(events as u64);
        });
    }

    /// Events wait for the topic.
    pub fn waits(&self, topic: &Arc<str>, events: usize) {
        change(&mut self.slow(), topic, |topic| topic.status.waiting += events as u64);
    }

    pub fn handler_retries(&self, topic: &Arc<str>, reason: String) {
        change(&mut self.slow(), topic, |topic| topic.status.retrying = Some(reason));
    }

    pub fn handler_goes_on(&self, topic: &Arc<str>) {
        change(&mut self.slow(), topic, |topic| topic.status.retrying = None);
    }

    pub fn pause(&self, topic: &Arc<str>, paused: bool) {
        change(&mut self.slow(), topic, |topic| topic.status.paused = paused);
    }

    /// Old rows were looked for.
    pub fn swept(&self, removed: u64, errors: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.retention_removed.fetch_add(removed, Relaxed);
        self.retention_errors.fetch_add(errors, Relaxed);
        self.retention_last_run.store(now.as_secs(), Relaxed);
    }

    pub fn transaction_committed(&self, took: Duration) {
        self.transactions.fetch_add(1, Relaxed);
        self.commit_us.store(took.as_micros() as u64, Relaxed);
    }

    pub fn dead_lettered(&self) {
        self.dead_letters.fetch_add(1, Relaxed);
    }

    pub fn topic_open(&self, topic: &Arc<str>) {
        change(&mut self.slow(), topic, |topic| topic.status.open = true);
    }

    pub fn topic_failed(&self, topic: &Arc<str>, error: &Error) {
        change(&mut self.slow(), topic, |topic| {
            topic.status.open = false;
            topic.status.restarts += 1;
            topic.status.last_error = Some(error.to_string());
        });
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        // Nothing panics while it is held; if something did, counters are still counters.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn change(slow: &mut Slow, topic: &Arc<str>, how: impl FnOnce(&mut Topic)) {
    match slow.topics.get_mut(topic) {
        Some(topic) => how(topic),
        None => how(slow.topics.entry(Arc::clone(topic)).or_default()),
    }
}
