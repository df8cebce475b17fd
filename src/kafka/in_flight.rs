//! Counts the batches of each topic that are in flight.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// The batches of a topic that are in flight.
///
/// It belongs to the topic and not to its actor: the successor of a failed actor must not send
/// before everything that the failed one sent has ended, or the order would break.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    pub(super) fn batch_begins(&self) {
        self.0.send_modify(|batches| *batches += 1);
    }

    pub(super) fn batch_ends(&self) {
        self.0.send_modify(|batches| *batches = batches.saturating_sub(1));
    }

    /// Waits until no batch is in flight. Cancel-safe.
    pub async fn ended(&self) {
        // The sender is part of self, so the channel can't close meanwhile.
        let _ = self.0.subscribe().wait_for(|batches| *batches == 0).await;
    }
}

/// A batch that counts as in flight until this is dropped.
pub(crate) struct InFlightBatch(InFlight);

impl InFlightBatch {
    pub(super) fn new(of: InFlight) -> Self {
        of.batch_begins();
        InFlightBatch(of)
    }
}

impl Drop for InFlightBatch {
    fn drop(&mut self) {
        self.0.batch_ends();
    }
}

/// The counts of all topics of a client.
#[derive(Default)]
pub(super) struct TopicsInFlight(Mutex<HashMap<Arc<str>, InFlight>>);

impl TopicsInFlight {
    pub fn of(&self, topic: &Arc<str>) -> InFlight {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(Arc::clone(topic)).or_default().clone()
    }
}
