//! Collects where Kafka appended the records of a batch.

use std::sync::{Mutex, PoisonError};

/// The place of a record in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub partition: i32,
    /// None if the broker no longer knew it.
    pub offset: Option<i64>,
}

/// Places of the records of a batch, by index; none for a record that Kafka has not acknowledged.
pub(crate) struct Places(Mutex<Vec<Option<Place>>>);

impl Places {
    /// Places of `count` records, none of which is acknowledged yet.
    pub fn new(count: usize) -> Self {
        Places(Mutex::new(vec![None; count]))
    }

    /// Notes records that follow each other in a partition, the first one at `first`.
    pub fn note(&self, indexes: &[u32], first: Place) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, behind) in indexes.iter().zip(0..) {
            if let Some(place) = places.get_mut(*index as usize) {
                *place = Some(Place { offset: first.offset.map(|at| at + behind), ..first });
            }
        }
    }

    /// Returns the places noted so far.
    pub fn take(&self) -> Vec<Option<Place>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
