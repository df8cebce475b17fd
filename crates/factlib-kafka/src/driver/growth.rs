//! Takes partitions that are added to an open topic into use, by
//! [`Settings::added_partitions`](crate::Settings::added_partitions).
//!
//! # Draining
//! Records that are pushed from now on belong to the next transaction, or without transactions to
//! the next *round* of records, and are mapped to all partitions. The driver sends them once the
//! earlier ones are acknowledged, refused or committed, and the observer has dropped the
//! [`DrainHold`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Closing, Driver,
    topics::{Partition, TopicState},
    transaction::Transaction,
};
use crate::{settings::AddedPartitions, topic::Announced};

/// Partitions that were added to a topic and are not used yet.
pub(super) struct Growth {
    from: usize,
    /// The last transaction, or round of records, that is mapped to the former partitions.
    last_round: u64,
    /// Set once all of these records have their result: true when the observer lets the others go.
    released: Option<Arc<AtomicBool>>,
}

/// Holds back the records of a topic to which partitions were added, until it is dropped.
#[must_use = "records are sent to the added partitions when this value is dropped"]
pub struct DrainHold {
    released: Arc<AtomicBool>,
    announced: Arc<Announced>,
}

impl Drop for DrainHold {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Release);
        self.announced.alarm.notify_one();
    }
}

impl fmt::Debug for DrainHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainHold").finish_non_exhaustive()
    }
}

impl Growth {
    /// Returns the last transaction or round that may be sent before the topic is drained.
    pub fn last_round(&self, open_transaction: u64) -> u64 {
        self.last_round.min(open_transaction)
    }

    /// Returns true if every record that was mapped to the former partitions has its result.
    fn is_drained(&self, state: &TopicState, transaction: Option<&Transaction>) -> bool {
        match transaction {
            Some(transaction) => transaction.number() > self.last_round,
            None => state.is_at_rest(self.last_round),
        }
    }

    fn is_released(&self) -> bool {
        self.released.as_ref().is_some_and(|released| released.load(Ordering::Acquire))
    }
}

impl Driver {
    /// Handles the number of partitions in a metadata response: of a new topic, or of one that may
    /// have got some.
    pub(super) fn add_partitions_found(&mut self, place: usize, count: usize) {
        let is_transactional = self.transaction.is_some();
        let state = &mut self.topics[place];
        let from = state.partitions.len();
        // While partitions are added, the next response tells of further ones.
        if count <= from || state.growth.is_some() {
            return;
        }
        if let Some(handle) = &state.topic {
            match self.settings.added_partitions {
                _ if from == 0 => handle.0.grow(count),
                AddedPartitions::AtOnce => {
                    self.observer.grown(&state.name, from, count);
                    handle.0.grow(count);
                }
                AddedPartitions::Drained => {
                    self.observer.grown(&state.name, from, count);
                    let last_round = handle.0.grow_later(count, is_transactional);
                    state.growth = Some(Growth { from, last_round, released: None });
                    self.growing.push(place);
                }
                AddedPartitions::Ignored => {
                    if std::mem::replace(&mut state.ignored, count) != count {
                        self.observer.grown(&state.name, from, count);
                    }
                    return;
                }
            }
        }
        state.partitions.resize_with(count, || Partition::new(is_transactional));
    }

    /// Lets records go to added partitions of topics that are drained.
    pub(super) fn advance_growths(&mut self) {
        if self.growing.is_empty() {
            return;
        }
        let mut growing = std::mem::take(&mut self.growing);
        growing.retain(|place| self.is_growing(*place));
        self.growing = growing;
    }

    /// Takes the next step of a topic with added partitions. Returns false if it was the last one.
    fn is_growing(&mut self, place: usize) -> bool {
        let state = &mut self.topics[place];
        // The topic was closed, and will be opened with all of its partitions.
        let Some(growth) = &state.growth else { return false };
        if !matches!(state.closing, Closing::No) {
            return true;
        }
        if growth.released.is_none() {
            if !growth.is_drained(state, self.transaction.as_ref()) {
                return true;
            }
            let (from, released) = (growth.from, Arc::new(AtomicBool::new(false)));
            if let Some(growth) = &mut state.growth {
                growth.released = Some(Arc::clone(&released));
            }
            let hold = DrainHold { released, announced: Arc::clone(&self.announced) };
            self.observer.drained(&state.name, from, state.partitions.len(), hold);
        }
        if !state.growth.as_ref().is_some_and(Growth::is_released) {
            return true;
        }
        state.growth = None;
        if let Some(handle) = state.topic.clone() {
            for partition in handle.0.take_announced_partitions() {
                self.enqueue_partition(place, partition);
            }
        }
        false
    }
}
