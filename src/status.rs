//! What a pipeline is doing, for whoever asks: counters that the actors write
//! once a batch and [`PipelineStatus`], a copy of them at one moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;

use crate::{Error, Lsn, messages::ByteWindow};

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
    /// Which life of the chain reader, decoder, router; counts from 1.
    pub generation: u64,
    /// End of the WAL that the server has sent or reported.
    pub received_lsn: Lsn,
    /// Everything up to here is delivered and saved.
    pub saved_lsn: Lsn,
    /// Everything up to here PostgreSQL was told to forget.
    pub confirmed_lsn: Lsn,
    /// Events that were delivered, by this process.
    pub events: u64,
    /// Events that went to the dead letters, by this process.
    pub dead_letters: u64,
    /// Bytes between the WAL and the acknowledgement.
    pub in_flight_bytes: usize,
    /// The most that these may be.
    pub window_bytes: usize,
    /// Topics that had events, by name.
    pub topics: BTreeMap<String, TopicStatus>,
}

/// A topic at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct TopicStatus {
    /// Events that were delivered to it.
    pub events: u64,
    /// Batches can be sent to it.
    pub open: bool,
    /// How often it was opened again after a failure.
    pub restarts: u64,
    /// The last failure.
    pub last_error: Option<String>,
}

/// The counters behind [`PipelineStatus`]; shared by all actors of a pipeline.
pub(crate) struct Status {
    generation: AtomicU64,
    received_lsn: AtomicU64,
    saved_lsn: AtomicU64,
    confirmed_lsn: AtomicU64,
    events: AtomicU64,
    dead_letters: AtomicU64,
    window: ByteWindow,
    slow: Mutex<Slow>,
}

/// What changes rarely, or once a batch and topic.
#[derive(Default)]
struct Slow {
    state: PipelineState,
    topics: BTreeMap<Arc<str>, TopicStatus>,
}

impl Status {
    pub fn new(window: ByteWindow) -> Self {
        Status {
            generation: AtomicU64::new(0),
            received_lsn: AtomicU64::new(0),
            saved_lsn: AtomicU64::new(0),
            confirmed_lsn: AtomicU64::new(0),
            events: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            window,
            slow: Mutex::default(),
        }
    }

    pub fn snapshot(&self) -> PipelineStatus {
        let slow = self.slow();
        PipelineStatus {
            state: slow.state.clone(),
            generation: self.generation.load(Relaxed),
            received_lsn: Lsn::new(self.received_lsn.load(Relaxed)),
            saved_lsn: Lsn::new(self.saved_lsn.load(Relaxed)),
            confirmed_lsn: Lsn::new(self.confirmed_lsn.load(Relaxed)),
            events: self.events.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            in_flight_bytes: self.window.used(),
            window_bytes: self.window.size(),
            topics: slow.topics.iter().map(|(name, t)| (name.to_string(), t.clone())).collect(),
        }
    }

    pub fn set_state(&self, state: PipelineState) {
        self.slow().state = state;
    }

    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Relaxed);
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

    pub fn delivered(&self, topic: &Arc<str>, events: usize) {
        self.events.fetch_add(events as u64, Relaxed);
        self.topic(topic, |status| status.events += events as u64);
    }

    pub fn dead_lettered(&self) {
        self.dead_letters.fetch_add(1, Relaxed);
    }

    pub fn topic_open(&self, topic: &Arc<str>) {
        self.topic(topic, |status| status.open = true);
    }

    pub fn topic_failed(&self, topic: &Arc<str>, error: &Error) {
        self.topic(topic, |status| {
            status.open = false;
            status.restarts += 1;
            status.last_error = Some(error.to_string());
        });
    }

    fn topic(&self, topic: &Arc<str>, change: impl FnOnce(&mut TopicStatus)) {
        let mut slow = self.slow();
        match slow.topics.get_mut(topic) {
            Some(status) => change(status),
            None => change(slow.topics.entry(Arc::clone(topic)).or_default()),
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        // Nothing panics while it is held; if something did, counters are still counters.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
