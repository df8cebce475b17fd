//! Queues the records of a topic: senders push records into the pending batches of each partition,
//! and the driver takes the batches out.
//!
//! Senders push on their own threads; the [driver](crate::driver) runs on its own task.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use self::pending::OpenPartition;
pub(crate) use self::pending::{Outgoing, PendingBatch};
use crate::{partitioner, receipt::Receipt, record_batch::Record, transaction::Sealed};

mod pending;

/// Smallest batch limit that shrinking reaches.
const MIN_BATCH_BYTES: usize = 1_000;

/// Reason why a record could not be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The record names a partition that the topic lacks.
    #[error("the topic has no partition {0}")]
    NoPartition(i32),
    /// The topic was closed, or created again with fewer partitions. Open the topic again with the
    /// producer.
    #[error("the topic is closed")]
    Closed,
}

/// A handle for sending to one topic; clones share the topic.
#[derive(Clone)]
pub struct Topic(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub name: Arc<str>,
    /// Index of the topic in the driver's list.
    pub place: usize,
    /// Present limit for a batch; shrinks when a broker refuses a batch as too large.
    batch_bytes: AtomicUsize,
    max_batch_bytes: AtomicUsize,
    open: Mutex<OpenPartitions>,
    is_closed: AtomicBool,
    transaction: Arc<AtomicU64>,
    /// True if the driver has been notified of new records.
    is_announced: AtomicBool,
    announced: Arc<Announced>,
}

/// Pending records of all partitions.
struct OpenPartitions {
    all: Vec<OpenPartition>,
    /// The partitions that records are mapped to up to some round.
    former: Option<Former>,
}

/// Number of partitions before some were added.
#[derive(Clone, Copy)]
struct Former {
    count: usize,
    /// The last transaction, or round of records, that is mapped to them.
    last_round: u64,
}

/// Topics with new records, and the notification that wakes the driver.
#[derive(Default)]
pub(crate) struct Announced {
    pub places: Mutex<Vec<usize>>,
    pub alarm: Notify,
    /// Number of the transaction that new records belong to. Without transactions, the round of
    /// records, which changes when a topic gets partitions.
    pub transaction: Arc<AtomicU64>,
}

impl Announced {
    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *lock(&self.places))
    }
}

impl Topic {
    pub(crate) fn new(
        name: Arc<str>,
        place: usize,
        partitions: usize,
        batch_bytes: usize,
        announced: Arc<Announced>,
    ) -> Self {
        let mut all = Vec::new();
        all.resize_with(partitions, OpenPartition::default);
        Topic(Arc::new(Shared {
            name,
            place,
            batch_bytes: AtomicUsize::new(batch_bytes),
            max_batch_bytes: AtomicUsize::new(batch_bytes),
            open: Mutex::new(OpenPartitions { all, former: None }),
            is_closed: AtomicBool::new(false),
            transaction: Arc::clone(&announced.transaction),
            is_announced: AtomicBool::new(false),
            announced,
        }))
    }

    /// Returns the name of the topic.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Begins to send. The pushed records are sent together when the returned value is dropped.
    ///
    /// In transactions, the records belong to the transaction that is open now.
    pub fn begin(&self) -> Sending<'_> {
        let open = lock(&self.0.open);
        // Read under the lock, so that a commit of this transaction waits for these records.
        let transaction = self.0.transaction.load(Ordering::Acquire);
        Sending { topic: &self.0, open, transaction, round: 0 }
    }

    /// Like [`begin`](Self::begin), but for a transaction that is sealed and not committed yet,
    /// for example to add dead letters for its refused records.
    pub fn begin_in(&self, sealed: &Sealed) -> Sending<'_> {
        let mut sending = self.begin();
        sending.transaction = sealed.number();
        sending
    }

    /// Limits batches to this many bytes before compression: the topic's `max.message.bytes`.
    /// Without a limit, the client halves the size whenever a broker refuses a batch as too large.
    pub fn limit_batches(&self, bytes: usize) {
        self.0.max_batch_bytes.fetch_min(bytes.max(1), Ordering::Relaxed);
        self.0.batch_bytes.fetch_min(bytes.max(1), Ordering::Relaxed);
    }

    /// Returns true once the topic is closed and accepts no more records.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.0.name).finish()
    }
}

/// Access for pushing records; holds the topic's lock.
#[must_use = "the records are sent when this value is dropped"]
pub struct Sending<'a> {
    topic: &'a Shared,
    open: MutexGuard<'a, OpenPartitions>,
    transaction: u64,
    round: u32,
}

impl Sending<'_> {
    /// Returns the number of partitions that these records can go to.
    pub fn partitions(&self) -> i32 {
        let former = self.open.former.filter(|former| self.transaction <= former.last_round);
        former.map_or(self.open.all.len(), |former| former.count) as i32
    }

    /// Appends a record to its partition: the given one, else the partition of its key, else the
    /// next in turn. `receipt` is notified of the result under `index`.
    ///
    /// # Errors
    /// Returns an error if the topic lacks the partition or is closed. The record is not appended
    /// then.
    pub fn push(
        &mut self,
        record: &Record<'_>,
        partition: Option<i32>,
        receipt: &Arc<dyn Receipt>,
        index: u32,
    ) -> Result<(), PushError> {
        if self.topic.is_closed.load(Ordering::Acquire) {
            return Err(PushError::Closed);
        }
        let count = self.partitions();
        let partition = match (partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::of_key(key, count),
            (None, None) => {
                let next = self.open.all.first_mut().map(OpenPartition::next_in_turn);
                self.round = next.unwrap_or(self.round);
                (self.round % count as u32) as i32
            }
        };
        let place = usize::try_from(partition).ok().filter(|_| partition < count);
        let open = place.and_then(|place| self.open.all.get_mut(place));
        let open = open.ok_or(PushError::NoPartition(partition))?;
        let max_bytes = self.topic.batch_bytes.load(Ordering::Relaxed);
        open.push(record, receipt, index, self.transaction, max_bytes);
        Ok(())
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.topic.is_announced.swap(true, Ordering::AcqRel) {
            lock(&self.topic.announced.places).push(self.topic.place);
            self.topic.announced.alarm.notify_one();
        }
    }
}

impl Shared {
    /// Returns the partitions with records, and resets the announcement: the next record announces
    /// the topic again.
    pub fn take_announced_partitions(&self) -> Vec<usize> {
        let open = lock(&self.open);
        self.is_announced.store(false, Ordering::Release);
        let filled = open.all.iter().enumerate().filter(|(_, open)| !open.is_empty());
        filled.map(|(place, _)| place).collect()
    }

    /// Takes the oldest batch of a partition, if its transaction is not later than `transaction`.
    pub fn take(&self, partition: usize, transaction: u64) -> Option<PendingBatch> {
        let mut open = lock(&self.open);
        open.all.get_mut(partition)?.take(transaction)
    }

    /// Returns true if the partition has records of this transaction or an earlier one.
    pub fn has_records(&self, partition: usize, transaction: u64) -> bool {
        let open = lock(&self.open);
        open.all.get(partition).is_some_and(|open| open.has_records(transaction))
    }

    /// Drops all records.
    pub fn clear(&self) {
        let dropped: Vec<_> =
            lock(&self.open).all.iter_mut().flat_map(OpenPartition::take_all).collect();
        // Dropped after the lock is released, because a receipt may send when it is dropped.
        drop(dropped);
    }

    /// Takes all batches of a partition. Once the topic is closed, no batch follows them.
    pub fn take_all(&self, partition: usize) -> Vec<PendingBatch> {
        lock(&self.open).all.get_mut(partition).map(OpenPartition::take_all).unwrap_or_default()
    }

    /// Rejects records from now on.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Halves the batch limit after a batch was too large.
    pub fn shrink_batches(&self) {
        let half = |bytes: usize| Some((bytes / 2).max(MIN_BATCH_BYTES));
        let _ = self.batch_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }

    /// Doubles the batch limit, because the topic's limit may have been raised.
    pub fn grow_batches(&self) {
        let max = self.max_batch_bytes.load(Ordering::Relaxed);
        let twice = |bytes: usize| (bytes < max).then(|| (bytes * 2).min(max));
        let _ = self.batch_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, twice);
    }

    /// Adds partitions, up to this number.
    pub fn grow(&self, partitions: usize) {
        let mut open = lock(&self.open);
        open.grow(partitions);
    }

    /// Adds partitions for the records of later transactions or rounds. Returns the last one whose
    /// records are mapped to the former partitions.
    pub fn grow_later(&self, partitions: usize, is_transactional: bool) -> u64 {
        let mut open = lock(&self.open);
        let last_round = match is_transactional {
            true => self.transaction.load(Ordering::Acquire),
            false => self.transaction.fetch_add(1, Ordering::AcqRel),
        };
        open.former = Some(Former { count: open.all.len(), last_round });
        open.grow(partitions);
        last_round
    }
}

impl OpenPartitions {
    fn grow(&mut self, partitions: usize) {
        if partitions > self.all.len() {
            self.all.resize_with(partitions, OpenPartition::default);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::Refusal;

    struct IgnoredReceipt;

    impl Receipt for IgnoredReceipt {
        fn acknowledged(&self, _: &[u32]) {}
        fn refused(&self, _: u32, _: &Refusal) {}
    }

    fn topic() -> Topic {
        Topic::new("t".into(), 0, 1, 1_000, Arc::default())
    }

    fn push(mut sending: Sending<'_>, value: &[u8]) -> Result<(), PushError> {
        let receipt: Arc<dyn Receipt> = Arc::new(IgnoredReceipt);
        let record = Record { value: Some(value), ..Record::default() };
        sending.push(&record, None, &receipt, 0)
    }

    #[test]
    fn records_of_a_sealed_transaction_come_before_those_of_the_next() {
        let topic = topic();
        let take = |transaction| Some(topic.0.take(0, transaction)?.receipts.len());
        push(topic.begin(), b"1").expect("it is open");
        let sealed = Sealed::sealing(&topic.0.transaction);
        push(topic.begin(), b"of the next").expect("it is open");
        push(topic.begin_in(&sealed), b"2").expect("it is open");
        assert_eq!(topic.0.take(0, 0).map(|batch| batch.batch.count()), Some(2));
        assert_eq!((take(0), topic.0.has_records(0, 0)), (None, false));
        assert_eq!(take(1), Some(1));
        push(topic.begin_in(&sealed), b"late").expect("it is open");
        push(topic.begin(), b"of the next").expect("it is open");
        assert_eq!((take(0), take(0), take(1)), (Some(1), None, Some(1)));
    }

    #[test]
    fn records_of_a_later_round_are_mapped_to_added_partitions_and_wait() {
        for is_transactional in [false, true] {
            let topic = topic();
            push(topic.begin(), b"before").expect("it is open");
            let last_round = topic.0.grow_later(4, is_transactional);
            let sealed = Sealed::sealing(&topic.0.transaction);
            let partitions = |sending: Sending<'_>| sending.partitions();
            assert_eq!(partitions(topic.begin()), 4);
            if is_transactional {
                assert_eq!(partitions(topic.begin_in(&sealed)), 1);
            }
            for value in 0..8_u8 {
                push(topic.begin(), &[value]).expect("it is open");
            }
            let count =
                |round| (0..4).filter(|place| topic.0.take(*place, round).is_some()).count();
            assert_eq!((count(last_round), count(last_round)), (1, 0));
            assert_eq!(count(u64::MAX), 4);
        }
    }

    #[test]
    fn batches_shrink_and_grow_up_to_what_the_topic_takes() {
        let topic = topic();
        let size = || topic.0.batch_bytes.load(Ordering::Relaxed);
        topic.0.shrink_batches();
        assert_eq!(size(), MIN_BATCH_BYTES);
        topic.limit_batches(800);
        assert_eq!(size(), 800);
        topic.0.grow_batches();
        assert_eq!(size(), 800);
        for _ in 0..4 {
            push(topic.begin(), &[7; 300]).expect("it is open");
        }
        let counts = || topic.0.take(0, 0).map(|batch| batch.batch.count());
        assert_eq!((counts(), counts(), counts()), (Some(3), Some(1), None));
    }

    #[test]
    fn a_closed_topic_takes_nothing() {
        let topic = topic();
        topic.0.close();
        assert_eq!(push(topic.begin(), b"x"), Err(PushError::Closed));
    }
}
