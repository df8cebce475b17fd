//! The size of batches that each topic takes, as far as that is known.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Factor by which batches are made smaller after one that was too large, where the topic's limit
/// is not known.
const STEP: usize = 4;

/// Lower bound for the size of a batch: even a topic for small records takes one of these.
const LEAST: usize = 1_000;

/// For each topic, the batch size with which a batch was too large.
#[derive(Clone, Default)]
pub(crate) struct BatchLimits(Arc<Mutex<HashMap<Arc<str>, usize>>>);

impl BatchLimits {
    /// Notes that a batch with a record of this size was too large, of a client with this
    /// `batch_size`. A record that is itself large says nothing about the batch size.
    pub fn was_too_large(&self, topic: &Arc<str>, batch_size: usize, record: usize) {
        if record > batch_size / STEP {
            return;
        }
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = limits.entry(Arc::clone(topic)).or_insert(batch_size);
        *limit = batch_size.min(*limit);
    }

    /// Maximum size of a batch for a topic, whose own setting is `limit` if that is known.
    pub fn of(&self, topic: &str, limit: Option<usize>) -> usize {
        let limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (limit, limits.get(topic)) {
            (Some(limit), Some(too_large)) if limit > *too_large => (too_large / STEP).max(LEAST),
            (None, Some(too_large)) => (too_large / STEP).max(LEAST),
            (limit, _) => limit.unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_too_large_makes_the_next_smaller_until_the_limit_is_known() {
        let (limits, topic) = (BatchLimits::default(), Arc::from("t"));
        assert_eq!((limits.of("t", None), limits.of("t", Some(500))), (usize::MAX, 500));
        limits.was_too_large(&topic, 1_000_000, 900_000);
        assert_eq!(limits.of("t", None), usize::MAX, "the record was");
        limits.was_too_large(&topic, 1_000_000, 1_000);
        assert_eq!(limits.of("t", None), 250_000);
        limits.was_too_large(&topic, 250_000, 1_000);
        assert_eq!((limits.of("t", None), limits.of("other", None)), (62_500, usize::MAX));
        assert_eq!(limits.of("t", Some(20_000)), 20_000, "what the topic says");
        assert_eq!(limits.of("t", Some(1_000_000)), 62_500, "which is not so");
        limits.was_too_large(&topic, 1_200, 10);
        assert_eq!(limits.of("t", None), LEAST);
    }
}
