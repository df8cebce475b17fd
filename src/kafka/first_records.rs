//! Keeps the order of the first records that a client sends to each partition.
//!
//! A client that has a batch refused gives up (`enable.gapless.guarantee`), but one more batch
//! may have left it by then, behind the refused one and of the same partition. The broker refuses
//! that one for the gap in its sequence numbers, if it knows the client there; of a client that it
//! does not know, it takes any number. So until a partition has acknowledged a record of the
//! client, no two records of one key are on their way to it at a time: then nothing of what is
//! sent again has been overtaken by a record of its key.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Maximum number of keys that are tracked, of each kind: in flight and acknowledged.
const KEYS_MAX: usize = 10_000;

/// Partitions of a topic that have acknowledged a record of a client.
#[derive(Clone, Default)]
pub(crate) struct AcknowledgedPartitions(Arc<Acknowledged>);

#[derive(Default)]
struct Acknowledged {
    partitions: Mutex<HashSet<i32>>,
    /// All partitions have.
    complete: AtomicBool,
}

impl AcknowledgedPartitions {
    pub fn acknowledged(&self, partition: i32) {
        if !self.0.complete.load(Ordering::Relaxed) {
            self.lock().insert(partition);
        }
    }

    fn are(&self, count: usize) -> bool {
        let complete = count > 0 && self.lock().len() >= count;
        self.0.complete.store(complete, Ordering::Relaxed);
        complete
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<i32>> {
        // Nothing panics while it is held.
        self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides whether a record may be sent while others are in flight.
#[derive(Default)]
pub(crate) struct FirstRecords {
    partitions: AcknowledgedPartitions,
    /// Number of the topic's partitions, once that was asked.
    count: Option<usize>,
    on_their_way: HashSet<u64>,
    acknowledged: HashSet<u64>,
    over: bool,
}

impl FirstRecords {
    pub fn partitions(&self) -> AcknowledgedPartitions {
        self.partitions.clone()
    }

    /// True if a record of the key may be sent now; it then counts as sent. If not, it may be sent
    /// once nothing is in flight any more.
    pub fn may_send(&mut self, key: &[u8], partition: Option<i32>) -> bool {
        if self.over {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (key, partition).hash(&mut hasher);
        let key = hasher.finish();
        self.acknowledged.contains(&key)
            || self.on_their_way.len() < KEYS_MAX && self.on_their_way.insert(key)
    }

    /// True if it helps to know how many partitions the topic has.
    pub fn asks_for_count(&self) -> bool {
        !self.over && self.count.is_none()
    }

    /// Takes the number of partitions; 0 if it is not known.
    pub fn has_partitions(&mut self, count: usize) {
        self.count = Some(count).filter(|count| *count > 0);
    }

    /// All that was sent is acknowledged.
    pub fn all_acknowledged(&mut self) {
        if self.over {
            return;
        }
        self.over = self.count.is_some_and(|count| self.partitions.are(count));
        if self.acknowledged.len() >= KEYS_MAX {
            self.acknowledged.clear();
        }
        self.acknowledged.extend(self.on_their_way.drain());
        if self.over {
            self.acknowledged = HashSet::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_record_of_a_key_waits_for_the_first_until_all_partitions_are_known() {
        let mut first = FirstRecords::default();
        assert!(first.may_send(b"a", None) && first.may_send(b"b", None));
        assert!(!first.may_send(b"a", None));
        assert!(first.may_send(b"a", Some(1)), "it asks for another place");
        first.partitions().acknowledged(0);
        first.all_acknowledged();
        assert!(first.may_send(b"a", None) && first.may_send(b"a", None));
        assert!(first.may_send(b"c", None) && !first.may_send(b"c", None));
        assert!(first.asks_for_count());
        first.has_partitions(2);
        first.all_acknowledged();
        assert!(first.may_send(b"d", None) && !first.may_send(b"d", None));
        first.partitions().acknowledged(1);
        first.all_acknowledged();
        assert!(first.may_send(b"e", None) && first.may_send(b"e", None), "both are known");
        assert!(!first.asks_for_count());
    }

    #[test]
    fn keys_are_bounded() {
        let mut first = FirstRecords::default();
        for round in 0..3 {
            let sent = (0..2 * KEYS_MAX)
                .take_while(|key| first.may_send(format!("{round}-{key}").as_bytes(), None));
            assert_eq!(sent.count(), KEYS_MAX);
            first.all_acknowledged();
            assert!(first.acknowledged.len() <= 2 * KEYS_MAX);
        }
    }
}
