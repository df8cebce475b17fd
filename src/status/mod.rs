//! Collects what a pipeline is doing: the actors write counters once per batch, and readers take a
//! copy, [`PipelineStatus`].
//!
//! Each file holds the state of one subject and the methods by which actors report it.

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
    actors::Actor, lag::UndeliveredBatches, observed::Observations, published::PublicationState,
    rate::Rate, topics::Topic,
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
use crate::{
    Error, Lsn, dead_letter::HeldSummary, messages::ByteWindow, postgres::retention::Retention,
};

/// Time over which a rate of events is averaged.
const RATE_SPAN: Duration = Duration::from_secs(10);
/// Time over which the growth of retained WAL is averaged: the server frees WAL in large steps.
const GROWTH_SPAN: Duration = Duration::from_secs(120);

/// The counters behind [`PipelineStatus`]; shared by all actors of a pipeline.
pub(crate) struct Status {
    counts: Counts,
    window: ByteWindow,
    state: watch::Sender<PipelineState>,
    started: Instant,
    undelivered_batches: Mutex<UndeliveredBatches>,
    observed: Observations,
    locked: Mutex<Locked>,
    recent: Mutex<Recent>,
}

/// Counters for which an atomic is enough.
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
    gate_bytes: AtomicU64,
}

/// State that changes rarely, or once per batch and topic.
struct Locked {
    retained: Retention,
    /// End of the server's WAL at the last start.
    start_wal_end: Lsn,
    retained_wal_waits_for: Option<String>,
    gate_waits_for: Option<String>,
    held: HeldSummary,
    publishing: PublicationState,
    growth: Rate,
    rate: Rate,
    saved_at: Option<u64>,
    actors: BTreeMap<&'static str, Actor>,
    kafka_error: Option<String>,
    stopped_by: Option<String>,
    /// Last report of each client, by its name.
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
            undelivered_batches: Mutex::default(),
            observed: Observations::default(),
            locked: Mutex::new(Locked {
                retained: Retention::default(),
                start_wal_end: Lsn::ZERO,
                retained_wal_waits_for: None,
                gate_waits_for: None,
                held: HeldSummary::default(),
                publishing: PublicationState::default(),
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

    /// Watches the state.
    pub fn subscribe(&self) -> watch::Receiver<PipelineState> {
        self.state.subscribe()
    }

    /// Notes a new reader. Unless it `continues`, it reads again what the last one had read.
    pub fn set_generation(&self, generation: u64, continues: bool) {
        self.counts.generation.store(generation, Relaxed);
        if continues {
            return;
        }
        self.undelivered_batches().clear();
        self.change_all(|topic| topic.status.waiting = 0);
    }

    /// Notes the error that ends the pipeline; the first one counts.
    pub fn stops_with(&self, error: &Error) {
        self.locked().stopped_by.get_or_insert_with(|| error.to_string());
    }

    /// Notes that the pipeline and all its actors have stopped.
    pub fn stopped(&self) {
        self.set_state(PipelineState::Stopped);
        for actor in self.locked().actors.values_mut() {
            actor.state = ActorState::Stopped;
            actor.waits.set(None, Instant::now());
        }
    }

    /// Takes the samples that rates are computed from; call it once a second.
    pub fn sample(&self) {
        let now = Instant::now();
        let events = self.counts.events.load(Relaxed);
        let mut locked = self.locked();
        locked.rate.sample(events, now);
        for topic in locked.topics.values_mut() {
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
        self.undelivered_batches().read(end, committed_us, boundary);
    }

    /// Notes that everything up to here is delivered.
    pub fn safe(&self, lsn: Lsn) {
        self.counts.delivered_lsn.fetch_max(lsn.as_u64(), Relaxed);
        self.undelivered_batches().delivered(lsn);
    }

    /// Notes the start position, which is saved already.
    pub fn starts_at(&self, lsn: Lsn) {
        self.counts.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    pub fn saved(&self, lsn: Lsn) {
        self.counts.saved_lsn.fetch_max(lsn.as_u64(), Relaxed);
        self.locked().saved_at = Some(unix_seconds());
    }

    pub fn confirmed(&self, lsn: Lsn) {
        self.counts.confirmed_lsn.fetch_max(lsn.as_u64(), Relaxed);
    }

    /// Notes that saving the position failed; it is retried.
    pub fn save_failed(&self, actor: &'static str, error: &Error) {
        self.counts.checkpoint_errors.fetch_add(1, Relaxed);
        self.actor_complains(actor, error.to_string());
        self.actor_waits(actor, Some(BlockedBy::Store));
    }

    pub fn retained_wal(&self, retained: Retention, waits_for: Option<String>) {
        let mut locked = self.locked();
        locked.growth.sample(retained.bytes(), Instant::now());
        locked.retained = retained;
        locked.retained_wal_waits_for = waits_for;
    }

    /// Notes the bytes that wait for standbys, or to be visible.
    pub fn gate_holds(&self, bytes: usize) {
        self.counts.gate_bytes.store(bytes as u64, Relaxed);
    }

    /// Notes the condition that these bytes wait for.
    pub fn gate_waits_for(&self, condition: Option<String>) {
        self.locked().gate_waits_for = condition;
    }

    /// Notes the end of the server's WAL at a start.
    pub fn wal_ends_at(&self, lsn: Lsn) {
        self.locked().start_wal_end = lsn;
    }

    /// Counts events that were read, and those among them that are not sent.
    pub fn read(&self, events: usize, filtered: usize) {
        self.counts.events_read.fetch_add(events as u64, Relaxed);
        self.counts.events_filtered.fetch_add(filtered as u64, Relaxed);
    }

    /// Notes a sweep of old rows.
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

    /// Notes how many events are held in the table.
    pub fn held(&self, held: HeldSummary) {
        self.locked().held = held;
    }

    pub fn replication_failed(&self) {
        self.counts.replication_errors.fetch_add(1, Relaxed);
    }

    fn undelivered_batches(&self) -> MutexGuard<'_, UndeliveredBatches> {
        self.undelivered_batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked(&self) -> MutexGuard<'_, Locked> {
        // Nothing panics while it is held; if something did, counters are still counters.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
