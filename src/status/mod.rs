//! What a pipeline is doing, for whoever asks: counters that the actors write
//! once a batch and [`PipelineStatus`], a copy of them at one moment.
//!
//! Each file has what is told of its subject, and what is kept of that.

mod actors;
mod kafka;
mod lag;
mod observed;
mod pipeline;
mod published;
mod rate;
mod recent;
mod topics;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use self::{
    actors::Actor, lag::OnTheWay, observed::Observations, published::Publishing, rate::Rate,
    topics::Topic,
};
pub use self::{
    actors::{ActorState, ActorStatus, BlockedBy},
    lag::Lag,
    pipeline::{PipelineState, PipelineStatus},
    published::{PublicationProblem, UnpublishedRows},
    topics::TopicStatus,
};
pub(crate) use self::{lag::TransactionBoundary, observed::Observed, recent::Recent};
pub use crate::kafka::{BrokerStatus, KafkaStatus};
use crate::{Error, Lsn, messages::ByteWindow, postgres::retention::Retention};

/// What a rate of events is of.
const RATE_SPAN: Duration = Duration::from_secs(10);
/// What the growth of retained WAL is of: the server frees it in strides.
const GROWTH_SPAN: Duration = Duration::from_secs(120);

/// The counters behind [`PipelineStatus`]; shared by all actors of a pipeline.
pub(crate) struct Status {
    counts: Counts,
    window: ByteWindow,
    state: watch::Sender<PipelineState>,
    started: Instant,
    on_the_way: Mutex<OnTheWay>,
    observed: Observations,
    slow: Mutex<Slow>,
    recent: Mutex<Recent>,
}

/// What an atomic is enough for.
#[derive(Default)]
struct Counts {
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
}

/// What changes rarely, or once a batch and topic.
struct Slow {
    retained: Retention,
    /// End of the server's WAL at the last start.
    start_wal_end: Lsn,
    retained_wal_waits_for: Option<String>,
    publishing: Publishing,
    growth: Rate,
    rate: Rate,
    saved_at: Option<u64>,
    actors: BTreeMap<&'static str, Actor>,
    kafka_error: Option<String>,
    stopped_by: Option<String>,
    /// What each client told last, by its name.
    kafka_clients: BTreeMap<String, KafkaStatus>,
    topics: BTreeMap<Arc<str>, Topic>,
}

impl Status {
    pub fn new(window: ByteWindow) -> Self {
        Status {
            counts: Counts::default(),
            window,
            state: watch::Sender::default(),
            started: Instant::now(),
            on_the_way: Mutex::default(),
            observed: Observations::default(),
            slow: Mutex::new(Slow {
                retained: Retention::default(),
                start_wal_end: Lsn::ZERO,
                retained_wal_waits_for: None,
                publishing: Publishing::default(),
                growth: Rate::over(GROWTH_SPAN),
                rate: Rate::over(RATE_SPAN),
                saved_at: None,
                actors: BTreeMap::new(),
                kafka_error: None,
                stopped_by: None,
                kafka_clients: BTreeMap::new(),
                topics: BTreeMap::new(),
            }),
            recent: Mutex::default(),
        }
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
        self.counts.generation.store(generation, Relaxed);
        if continues {
            return;
        }
        self.on_the_way().clear();
        self.change_all(|topic| topic.status.waiting = 0);
    }

    /// The pipeline ends, because of this error.
    pub fn stops_with(&self, error: &Error) {
        self.slow().stopped_by.get_or_insert_with(|| error.to_string());
    }

    /// The pipeline is over, and with it all of them.
    pub fn stopped(&self) {
        self.set_state(PipelineState::Stopped);
        for actor in self.slow().actors.values_mut() {
            actor.state = ActorState::Stopped;
            actor.waits.set(None, Instant::now());
        }
    }

    /// Rates are made of what is told here: call it once a second.
    pub fn sample(&self) {
        let now = Instant::now();
        let events = self.counts.events.load(Relaxed);
        let mut slow = self.slow();
        slow.rate.sample(events, now);
        for topic in slow.topics.values_mut() {
            topic.rate.sample(topic.status.events, now);
        }
    }

    pub fn received(&self, lsn: Lsn) {
        self.counts.received_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    /// Notes a batch that was read: the end of its last transaction, the commit time of its first,
    /// and the transaction that it ends inside of.
    pub fn batch_read(
        &self,
        end: Option<Lsn>,
        committed_us: Option<i64>,
        boundary: TransactionBoundary,
    ) {
        self.on_the_way().read(end, committed_us, boundary);
    }

    /// Everything up to here is delivered.
    pub fn safe(&self, lsn: Lsn) {
        self.counts.delivered_lsn.fetch_max(lsn.as_u64(), Relaxed);
        self.on_the_way().delivered(lsn);
    }

    /// Where a start begins, which an earlier one saved.
    pub fn starts_at(&self, lsn: Lsn) {
        self.counts.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    pub fn saved(&self, lsn: Lsn) {
        self.counts.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
        self.slow().saved_at = Some(unix_seconds());
    }

    pub fn confirmed(&self, lsn: Lsn) {
        self.counts.confirmed_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    /// The position could not be saved; it is tried again.
    pub fn not_saved(&self, actor: &'static str, error: &Error) {
        self.counts.checkpoint_errors.fetch_add(1, Relaxed);
        self.actor_complains(actor, error.to_string());
        self.actor_waits(actor, Some(BlockedBy::Store));
    }

    pub fn retained_wal(&self, retained: Retention, waits_for: Option<String>) {
        let mut slow = self.slow();
        slow.growth.sample(retained.bytes(), Instant::now());
        slow.retained = retained;
        slow.retained_wal_waits_for = waits_for;
    }

    /// The server's WAL ended there when a start asked.
    pub fn wal_ends_at(&self, lsn: Lsn) {
        self.slow().start_wal_end = lsn;
    }

    /// Events were read, of which so many are not sent.
    pub fn read(&self, events: usize, filtered: usize) {
        self.counts.events_read.fetch_add(events as u64, Relaxed);
        self.counts.events_filtered.fetch_add(filtered as u64, Relaxed);
    }

    /// Old rows were looked for.
    pub fn swept(&self, removed: u64, errors: u64) {
        self.counts.retention_removed.fetch_add(removed, Relaxed);
        self.counts.retention_errors.fetch_add(errors, Relaxed);
        self.counts.retention_last_run.store(unix_seconds(), Relaxed);
    }

    pub fn transaction_committed(&self, took: Duration) {
        self.counts.transactions.fetch_add(1, Relaxed);
        self.counts.commit_us.store(took.as_micros() as u64, Relaxed);
    }

    pub fn dead_lettered(&self) {
        self.counts.dead_letters.fetch_add(1, Relaxed);
    }

    pub fn replication_failed(&self) {
        self.counts.replication_errors.fetch_add(1, Relaxed);
    }

    fn on_the_way(&self) -> MutexGuard<'_, OnTheWay> {
        self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        // Nothing panics while it is held; if something did, counters are still counters.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
