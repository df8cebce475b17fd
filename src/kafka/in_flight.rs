//! Counts the parts and records of a topic that librdkafka has.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

/// Parts and records of a topic that librdkafka has.
///
/// It belongs to the topic and not to its actor: who follows on a failed actor
/// must not send before what that one sent has ended, or the order would break.
#[derive(Clone)]
pub(crate) struct InFlight(Arc<Counts>);

struct Counts {
    parts: watch::Sender<usize>,
    records: AtomicUsize,
    no_records: Notify,
}

impl Default for InFlight {
    fn default() -> Self {
        let parts = watch::Sender::new(0);
        InFlight(Arc::new(Counts {
            parts,
            records: AtomicUsize::new(0),
            no_records: Notify::new(),
        }))
    }
}

impl InFlight {
    pub(super) fn part_begins(&self) {
        self.0.parts.send_modify(|parts| *parts += 1);
    }

    pub(super) fn part_ends(&self) {
        self.0.parts.send_modify(|parts| *parts = parts.saturating_sub(1));
    }

    pub(super) fn record_begins(&self) {
        self.0.records.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn record_ends(&self) {
        if self.0.records.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.no_records.notify_waiters();
        }
    }

    /// True while librdkafka has a record of the topic.
    pub fn has_records(&self) -> bool {
        self.0.records.load(Ordering::Acquire) > 0
    }

    /// Waits until librdkafka has no record of the topic. Cancel-safe.
    pub async fn no_records(&self) {
        loop {
            // Made first: it hears of an end between the question and the wait.
            let ended = self.0.no_records.notified();
            if !self.has_records() {
                return;
            }
            ended.await;
        }
    }

    /// Waits until no part is in flight. Cancel-safe.
    pub async fn ended(&self) {
        // The sender is part of self, so the channel can't close meanwhile.
        let _ = self.0.parts.subscribe().wait_for(|parts| *parts == 0).await;
    }
}
