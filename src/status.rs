//! What a pipeline is doing, for whoever asks: counters that the actors write
//! once a batch and [`PipelineStatus`], a copy of them at one moment.

mod actors;
mod kafka;
mod lag;
mod rate;
mod recent;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;
use tokio::sync::watch;

pub(crate) use self::recent::{Recent, now_ms};
use self::{
    actors::{Actor, Failure, Waits},
    lag::OnTheWay,
    rate::Rate,
};
pub use self::{
    actors::{ActorState, ActorStatus, BlockedBy},
    kafka::{BrokerStatus, KafkaStatus},
    lag::Lag,
};
use crate::{Error, Event, Lsn, messages::ByteWindow, postgres::retention::Retention};

/// Bounds of how many events a batch has.
const BATCH_EVENTS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0];
/// Bounds of its bytes as it was read, in the window.
const BATCH_BYTES: [f64; 7] =
    [4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// What a rate of events is of.
const RATE_SPAN: Duration = Duration::from_secs(10);
/// What the growth of retained WAL is of: the server frees it in strides.
const GROWTH_SPAN: Duration = Duration::from_secs(120);

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
    /// How fast it grows, in bytes a second over the last two minutes.
    pub retained_wal_growth: Option<f64>,
    /// WAL that may yet be written before the server gives the slot up; none without
    /// `max_slot_wal_keep_size`. What its disk has left, a server does not say.
    pub safe_wal_bytes: Option<i64>,
    /// How long that lasts at this growth; none without a limit, or while it does not grow.
    pub slot_lost_in_seconds: Option<u64>,
    /// End of the server's WAL when it was last asked.
    pub wal_end_lsn: Lsn,
    /// Everything up to here is delivered; saved within `checkpoint.interval`.
    pub delivered_lsn: Lsn,
    /// When a position was last saved, Unix seconds.
    pub saved_at: Option<u64>,
    /// How far delivery is behind; nothing of it while another instance reads.
    pub lag: Lag,
    /// Records delivered, a second over the last ten.
    pub events_per_second: f64,
    /// How long ago the pipeline was started.
    pub uptime_seconds: u64,
    /// The actors of the pipeline, by name; those of topics are in `topics`.
    pub actors: BTreeMap<&'static str, ActorStatus>,
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
    /// Failures to save the position, after each of which it is tried again.
    pub checkpoint_errors: u64,
    /// When they were last looked for, Unix seconds; 0 for never.
    pub retention_last_run: u64,
    /// How often an actor failed and was started again, by its name.
    pub restarts: BTreeMap<&'static str, u64>,
    /// What the Kafka client complained of last, if nothing was delivered since.
    pub kafka_error: Option<String>,
    /// The Kafka client's queue and its brokers, when it last told; none before.
    pub kafka: Option<KafkaStatus>,
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
    /// When that was, Unix seconds.
    pub last_error_at: Option<u64>,
    /// Records delivered, a second over the last ten.
    pub events_per_second: f64,
    /// What its events wait for, beside Kafka's acknowledgement.
    pub blocked_by: Option<BlockedBy>,
    /// How long they have waited in all, in seconds, by what for.
    pub blocked_seconds: BTreeMap<BlockedBy, f64>,
    /// Of a handler: how often an event was tried again.
    pub handler_retries: u64,
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
    delivered_lsn: AtomicU64,
    events_read: AtomicU64,
    events: AtomicU64,
    events_filtered: AtomicU64,
    dead_letters: AtomicU64,
    transactions: AtomicU64,
    commit_us: AtomicU64,
    replication_errors: AtomicU64,
    retention_removed: AtomicU64,
    retention_errors: AtomicU64,
    checkpoint_errors: AtomicU64,
    retention_last_run: AtomicU64,
    window: ByteWindow,
    state: watch::Sender<PipelineState>,
    started: Instant,
    on_the_way: Mutex<OnTheWay>,
    hearer: OnceLock<Hearer>,
    slow: Mutex<Slow>,
    recent: Mutex<Recent>,
}

/// What a histogram is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observed {
    /// From the read of a topic's part of a batch to the acknowledgement, in seconds.
    Latency,
    /// The events of a batch.
    BatchEvents,
    /// The bytes of the window that a batch takes.
    BatchBytes,
}

/// Of what, of which topic, and how much.
type Hearer = Box<dyn Fn(Observed, Option<&str>, f64) + Send + Sync>;

/// What changes rarely, or once a batch and topic.
struct Slow {
    retained: Retention,
    retained_wal_waits_for: Option<String>,
    growth: Rate,
    rate: Rate,
    batch_events: Histogram,
    batch_bytes: Histogram,
    saved_at: Option<u64>,
    actors: BTreeMap<&'static str, Actor>,
    kafka_error: Option<String>,
    /// What each client told last, by its name.
    kafka_clients: BTreeMap<String, KafkaStatus>,
    topics: BTreeMap<Arc<str>, Topic>,
}

struct Topic {
    status: TopicStatus,
    waits: Waits,
    rate: Rate,
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

    fn snapshot(&self, now: Instant) -> TopicStatus {
        TopicStatus {
            events_per_second: self.rate.per_second().unwrap_or_default(),
            blocked_by: self.waits.what(),
            blocked_seconds: self.waits.seconds(now),
            ..self.status.clone()
        }
    }
}

impl Status {
    pub fn new(window: ByteWindow) -> Self {
        Status {
            generation: AtomicU64::new(0),
            received_lsn: AtomicU64::new(0),
            saved_lsn: AtomicU64::new(0),
            confirmed_lsn: AtomicU64::new(0),
            delivered_lsn: AtomicU64::new(0),
            events_read: AtomicU64::new(0),
            events: AtomicU64::new(0),
            events_filtered: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            commit_us: AtomicU64::new(0),
            replication_errors: AtomicU64::new(0),
            retention_removed: AtomicU64::new(0),
            retention_errors: AtomicU64::new(0),
            checkpoint_errors: AtomicU64::new(0),
            retention_last_run: AtomicU64::new(0),
            window,
            state: watch::Sender::default(),
            started: Instant::now(),
            on_the_way: Mutex::default(),
            slow: Mutex::new(Slow {
                retained: Retention::default(),
                retained_wal_waits_for: None,
                growth: Rate::over(GROWTH_SPAN),
                rate: Rate::over(RATE_SPAN),
                batch_events: Histogram::new(BATCH_EVENTS),
                batch_bytes: Histogram::new(BATCH_BYTES),
                saved_at: None,
                actors: BTreeMap::new(),
                kafka_error: None,
                kafka_clients: BTreeMap::new(),
                topics: BTreeMap::new(),
            }),
            recent: Mutex::default(),
            hearer: OnceLock::new(),
        }
    }

    /// For a Kafka client without a pipeline: nobody looks.
    pub fn unwatched() -> Arc<Self> {
        Arc::new(Status::new(ByteWindow::new(1)))
    }

    pub fn snapshot(&self) -> PipelineStatus {
        let now = Instant::now();
        let state = self.state.borrow().clone();
        let lsn = |position: &AtomicU64| Lsn::new(position.load(Relaxed));
        let (received_lsn, saved_lsn) = (lsn(&self.received_lsn), lsn(&self.saved_lsn));
        let delivered_lsn = lsn(&self.delivered_lsn).max(saved_lsn);
        let seconds = self.on_the_way().seconds(SystemTime::now());
        let slow = self.slow();
        let retained_wal_growth = slow.growth.per_second();
        let actors = slow.actors.iter();
        PipelineStatus {
            generation: self.generation.load(Relaxed),
            received_lsn,
            saved_lsn,
            confirmed_lsn: lsn(&self.confirmed_lsn),
            retained_wal_bytes: slow.retained.bytes(),
            retained_wal_waits_for: slow.retained_wal_waits_for.clone(),
            retained_wal_growth,
            safe_wal_bytes: slow.retained.safe_wal_size,
            slot_lost_in_seconds: lasts(slow.retained.safe_wal_size, retained_wal_growth),
            wal_end_lsn: slow.retained.wal_end,
            delivered_lsn,
            saved_at: slow.saved_at,
            lag: match &state {
                // Whoever has the slot knows.
                PipelineState::StandingBy { .. } => Lag::default(),
                _ => Lag {
                    bytes: received_lsn.max(slow.retained.wal_end).distance_from(delivered_lsn),
                    events: slow.topics.values().map(|topic| topic.status.waiting).sum(),
                    seconds: seconds.or((state == PipelineState::Running).then_some(0.0)),
                },
            },
            events_per_second: slow.rate.per_second().unwrap_or_default(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            actors: actors.clone().map(|(name, actor)| (*name, actor.snapshot(now))).collect(),
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
            checkpoint_errors: self.checkpoint_errors.load(Relaxed),
            retention_last_run: self.retention_last_run.load(Relaxed),
            restarts: actors
                .filter(|(_, actor)| actor.restarts > 0)
                .map(|(name, actor)| (*name, actor.restarts))
                .collect(),
            kafka_error: slow.kafka_error.clone(),
            kafka: (!slow.kafka_clients.is_empty())
                .then(|| KafkaStatus::sum(slow.kafka_clients.values())),
            topics: slow
                .topics
                .iter()
                .map(|(name, topic)| (name.to_string(), topic.snapshot(now)))
                .collect(),
            state,
        }
    }

    /// Who hears of what histograms count, when it happens; the first counts.
    #[cfg(feature = "metrics")]
    pub fn on_observed(&self, hear: impl Fn(Observed, Option<&str>, f64) + Send + Sync + 'static) {
        let _ = self.hearer.set(Box::new(hear));
    }

    /// Nothing is locked then: that is code of others.
    fn tell(&self, what: Observed, topic: Option<&str>, value: f64) {
        if let Some(hear) = self.hearer.get() {
            hear(what, topic, value);
        }
    }

    /// How long parts took, by topic.
    pub fn latencies(&self) -> Vec<(Arc<str>, Histogram)> {
        let topics = &self.slow().topics;
        topics.iter().map(|(name, topic)| (Arc::clone(name), topic.latency.clone())).collect()
    }

    /// How many events batches have, and how many bytes of the window they took.
    pub fn batches(&self) -> (Histogram, Histogram) {
        let slow = self.slow();
        (slow.batch_events.clone(), slow.batch_bytes.clone())
    }

    /// What happened last.
    pub fn recent(&self) -> Recent {
        self.with_recent(|recent| recent.clone())
    }

    /// Events go to a topic, or to a handler.
    pub fn routed(&self, topic: &str, events: &[Event]) {
        self.with_recent(|recent| recent.routed(topic, events, now_ms()));
    }

    fn failed(&self, place: &str, error: &str) {
        self.with_recent(|recent| recent.failed(place, error, now_ms()));
    }

    fn with_recent<T>(&self, look: impl FnOnce(&mut Recent) -> T) -> T {
        look(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_state(&self, state: PipelineState) {
        if let PipelineState::Retrying { error } = &state {
            self.failed("relay", error);
        }
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
        self.on_the_way().clear();
        self.change_all(|topic| topic.status.waiting = 0);
    }

    pub fn replication_failed(&self) {
        self.replication_errors.fetch_add(1, Relaxed);
    }

    pub fn actor_failed(&self, actor: &'static str, error: &Error) {
        self.actor(actor, |actor| actor.restarts += 1);
        self.actor_complains(actor, error.to_string());
    }

    /// It goes on by itself.
    pub fn actor_complains(&self, actor: &'static str, text: String) {
        self.actor(actor, |actor| actor.error = Some(Failure { text, at: unix_seconds() }));
    }

    /// What it does from now on; it waits for nothing.
    pub fn actor_is(&self, actor: &'static str, state: ActorState) {
        self.actor(actor, |actor| {
            actor.state = state;
            actor.waits.set(None, Instant::now());
        });
    }

    /// It waits for this from now on, or for nothing.
    pub fn actor_waits(&self, actor: &'static str, what: Option<BlockedBy>) {
        self.actor(actor, |actor| actor.waits.set(what, Instant::now()));
    }

    fn actor(&self, actor: &'static str, change: impl FnOnce(&mut Actor)) {
        change(self.slow().actors.entry(actor).or_default());
    }

    /// The pipeline is over, and with it all of them.
    pub fn stopped(&self) {
        self.set_state(PipelineState::Stopped);
        for actor in self.slow().actors.values_mut() {
            actor.state = ActorState::Stopped;
            actor.waits.set(None, Instant::now());
        }
    }

    /// What the Kafka client complains of; true where that is news.
    pub fn kafka_trouble(&self, error: String) -> bool {
        self.failed("kafka", &error);
        let is_news = self.slow().kafka_error.replace(error.clone()) != Some(error);
        self.change_all(|_| {});
        is_news
    }

    pub fn kafka_client(&self, name: String, tells: KafkaStatus) {
        self.slow().kafka_clients.insert(name, tells);
    }

    pub fn kafka_client_ended(&self, name: &str) {
        self.slow().kafka_clients.remove(name);
    }

    /// Rates are made of what is told here: call it once a second.
    pub fn sample(&self) {
        let now = Instant::now();
        let events = self.events.load(Relaxed);
        let mut slow = self.slow();
        slow.rate.sample(events, now);
        for topic in slow.topics.values_mut() {
            topic.rate.sample(topic.status.events, now);
        }
    }

    pub fn received(&self, lsn: Lsn) {
        self.received_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    /// A batch was read: where its last transaction ends, when its first committed, and when
    /// the one did that it ends inside of; none of that where no transaction begins or ends in it.
    pub fn batch_read(
        &self,
        end: Option<Lsn>,
        committed_us: Option<i64>,
        open_us: Option<Option<i64>>,
    ) {
        self.on_the_way().read(end, committed_us, open_us);
    }

    /// Everything up to here is delivered.
    pub fn safe(&self, lsn: Lsn) {
        self.delivered_lsn.fetch_max(lsn.as_u64(), Relaxed);
        self.on_the_way().delivered(lsn);
    }

    /// Where a start begins, which an earlier one saved.
    pub fn starts_at(&self, lsn: Lsn) {
        self.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    pub fn saved(&self, lsn: Lsn) {
        self.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
        self.slow().saved_at = Some(unix_seconds());
    }

    pub fn confirmed(&self, lsn: Lsn) {
        self.confirmed_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    /// The position could not be saved; it is tried again.
    pub fn not_saved(&self, actor: &'static str, error: &Error) {
        self.checkpoint_errors.fetch_add(1, Relaxed);
        self.actor_complains(actor, error.to_string());
        self.actor_waits(actor, Some(BlockedBy::Store));
    }

    pub fn retained_wal(&self, retained: Retention, waits_for: Option<String>) {
        let mut slow = self.slow();
        slow.growth.sample(retained.bytes(), Instant::now());
        slow.retained = retained;
        slow.retained_wal_waits_for = waits_for;
    }

    /// A batch has so many events, and so many bytes of the window.
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    pub fn batch(&self, events: usize, bytes: usize) {
        let (events, bytes) = (events as f64, bytes as f64);
        let slow = self.slow();
        slow.batch_events.observe(events);
        slow.batch_bytes.observe(bytes);
        drop(slow);
        self.tell(Observed::BatchEvents, None, events);
        self.tell(Observed::BatchBytes, None, bytes);
    }

    /// Events were read, of which so many are not sent.
    pub fn read(&self, events: usize, filtered: usize) {
        self.events_read.fetch_add(events as u64, Relaxed);
        self.events_filtered.fetch_add(filtered as u64, Relaxed);
    }

    pub fn delivered(&self, topic: &Arc<str>, events: usize, latency: Duration) {
        self.events.fetch_add(events as u64, Relaxed);
        let over = self.slow().kafka_error.take().is_some();
        self.change(topic, |topic| {
            topic.latency.observe(latency.as_secs_f64());
            topic.status.events += events as u64;
            topic.status.waiting = topic.status.waiting.saturating_sub(events as u64);
        });
        if over {
            self.change_all(|_| {});
        }
        self.tell(Observed::Latency, Some(topic), latency.as_secs_f64());
    }

    /// A part has ended, and what is not delivered of it waits elsewhere.
    pub fn handed_on(&self, topic: &Arc<str>, events: usize, delivered: usize, latency: Duration) {
        self.events.fetch_add(delivered as u64, Relaxed);
        self.change(topic, |topic| {
            topic.latency.observe(latency.as_secs_f64());
            topic.status.events += delivered as u64;
            topic.status.waiting = topic.status.waiting.saturating_sub(events as u64);
        });
        self.tell(Observed::Latency, Some(topic), latency.as_secs_f64());
    }

    /// Events wait for the topic.
    pub fn waits(&self, topic: &Arc<str>, events: usize) {
        self.change(topic, |topic| topic.status.waiting += events as u64);
    }

    pub fn handler_retries(&self, topic: &Arc<str>, reason: String) {
        self.failed(topic, &reason);
        self.change(topic, |topic| {
            topic.status.retrying = Some(reason);
            topic.status.handler_retries += 1;
        });
    }

    pub fn handler_goes_on(&self, topic: &Arc<str>) {
        self.change(topic, |topic| topic.status.retrying = None);
    }

    pub fn pause(&self, topic: &Arc<str>, paused: bool) {
        self.change(topic, |topic| topic.status.paused = paused);
    }

    /// Old rows were looked for.
    pub fn swept(&self, removed: u64, errors: u64) {
        self.retention_removed.fetch_add(removed, Relaxed);
        self.retention_errors.fetch_add(errors, Relaxed);
        self.retention_last_run.store(unix_seconds(), Relaxed);
    }

    pub fn transaction_committed(&self, took: Duration) {
        self.transactions.fetch_add(1, Relaxed);
        self.commit_us.store(took.as_micros() as u64, Relaxed);
    }

    pub fn dead_lettered(&self) {
        self.dead_letters.fetch_add(1, Relaxed);
    }

    /// The event of a dead letter, and the topic that it was refused by.
    pub fn parked(&self, event: &Event, topic: Option<&str>, error: &Error) {
        self.with_recent(|recent| recent.parked(event, topic, error, now_ms()));
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

    fn change_all(&self, how: impl Fn(&mut Topic)) {
        let slow = &mut *self.slow();
        for topic in slow.topics.values_mut() {
            how(topic);
            topic.time(slow.kafka_error.is_some(), Instant::now());
        }
    }

    fn on_the_way(&self) -> MutexGuard<'_, OnTheWay> {
        self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        // Nothing panics while it is held; if something did, counters are still counters.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long so many bytes last at a growth of so many a second; none where it does not grow.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn lasts(bytes: Option<i64>, growth: Option<f64>) -> Option<u64> {
    let (bytes, growth) = (bytes?, growth.filter(|growth| *growth >= 1.0)?);
    Some((bytes.max(0) as f64 / growth) as u64)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
