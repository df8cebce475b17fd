//! A topic as its senders see it: records go into the open batch of their partition.
//!
//! Senders write into it on their own threads, the [driver](crate::driver) takes batches out.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    error::Code,
    partition, partitioner,
    record_batch::{BatchBuilder, Record, RecordBatch},
    transaction::Sealed,
};

/// Lower bound for the size of batches that shrink.
const LEAST_BATCH_BYTES: usize = 1_000;

/// Learns how records ended, each once; on the driver's task, which must not be held up.
///
/// Dropped before all of its records have ended, it says that nobody knows of the others: their
/// topic was closed, their transaction undone, or the driver is gone.
pub trait Receipt: Send + Sync + 'static {
    /// The records with these indexes are safe.
    fn acknowledged(&self, indexes: &[u32]);

    /// The record with this index will never be taken.
    fn refused(&self, index: u32, refusal: &Refusal);
}

/// The reason why a broker will never take a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Kafka's error code.
    pub code: Code,
    /// The broker's own words.
    pub message: Option<String>,
}

impl Refusal {
    /// A refusal with this code, and the broker's words where it gave some.
    pub fn new(code: Code, message: Option<String>) -> Self {
        Refusal { code, message }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{:?}: {message}", self.code),
            None => write!(f, "{:?}", self.code),
        }
    }
}

/// The reason why a record was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// It asks for a partition that the topic does not have.
    #[error("the topic has no partition {0}")]
    NoPartition(i32),
    /// The topic was closed, or made again with fewer partitions: ask the producer for it again.
    #[error("the topic is closed")]
    Closed,
}

/// Sends to one topic; clones send to the same.
#[derive(Clone)]
pub struct Topic(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub name: Arc<str>,
    /// Its place among the driver's topics.
    pub place: usize,
    /// Batches are no larger, as far as is known of what the topic takes.
    batch_bytes: AtomicUsize,
    most_batch_bytes: AtomicUsize,
    open: Mutex<Vec<Open>>,
    is_closed: AtomicBool,
    transaction: Arc<AtomicU64>,
    /// The driver knows that there is something.
    is_announced: AtomicBool,
    announced: Arc<Announced>,
}

/// Topics with new records, and the driver's alarm.
#[derive(Default)]
pub(crate) struct Announced {
    pub places: Mutex<Vec<usize>>,
    pub alarm: Notify,
    /// Number of the transaction that new records are for; none counts as 0.
    pub transaction: Arc<AtomicU64>,
}

impl Announced {
    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *lock(&self.places))
    }
}

/// Records that a partition's senders have written, and nobody has taken yet.
#[derive(Default)]
struct Open {
    /// In the order of their transactions, and of pushing.
    batches: VecDeque<Collected>,
    /// Records without a key go round; where the next one goes is up to this.
    unkeyed: u32,
}

/// Records, and who wants to know of them.
#[derive(Default)]
pub(crate) struct Collected {
    pub batch: BatchBuilder,
    pub receipts: Receipts,
    transaction: u64,
    is_full: bool,
}

impl Topic {
    pub(crate) fn new(
        name: Arc<str>,
        place: usize,
        partitions: usize,
        batch_bytes: usize,
        announced: Arc<Announced>,
    ) -> Self {
        let mut open = Vec::new();
        open.resize_with(partitions, Open::default);
        Topic(Arc::new(Shared {
            name,
            place,
            batch_bytes: AtomicUsize::new(batch_bytes),
            most_batch_bytes: AtomicUsize::new(batch_bytes),
            open: Mutex::new(open),
            is_closed: AtomicBool::new(false),
            transaction: Arc::clone(&announced.transaction),
            is_announced: AtomicBool::new(false),
            announced,
        }))
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Begins to send: records that are pushed go out together when this is dropped.
    ///
    /// In transactions, they are part of the one that is open at this moment.
    pub fn begin(&self) -> Sending<'_> {
        let open = lock(&self.0.open);
        // Read under the lock: whoever seals the transaction finds these records.
        let transaction = self.0.transaction.load(Ordering::Acquire);
        Sending { topic: &self.0, open, transaction, round: 0 }
    }

    /// Like [`begin`](Self::begin), for a transaction that is sealed and not committed yet: such
    /// as dead letters of what was refused in it.
    pub fn begin_in(&self, sealed: &Sealed) -> Sending<'_> {
        let mut sending = self.begin();
        sending.transaction = sealed.number();
        sending
    }

    /// Has batches be no larger than that, before compression: the topic's `max.message.bytes`.
    /// Without it, the size is found by batches that are refused.
    pub fn limit_batches(&self, bytes: usize) {
        self.0.most_batch_bytes.fetch_min(bytes.max(1), Ordering::Relaxed);
        self.0.batch_bytes.fetch_min(bytes.max(1), Ordering::Relaxed);
    }

    /// True once it was closed: nothing can be pushed any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.0.name).finish()
    }
}

/// Records being sent.
#[must_use = "records go out when this is dropped"]
pub struct Sending<'a> {
    topic: &'a Shared,
    open: MutexGuard<'a, Vec<Open>>,
    transaction: u64,
    round: u32,
}

impl Sending<'_> {
    /// How many partitions the topic has.
    pub fn partitions(&self) -> i32 {
        self.open.len() as i32
    }

    /// Writes a record behind the others of its partition: the one that it asks for, else that
    /// of its key, else the next one. `receipt` hears of it as `index`.
    ///
    /// # Errors
    /// A partition that is not there, or a topic that is closed; nothing is written then.
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
                let next = self.open.first_mut().map(|open| {
                    open.unkeyed = open.unkeyed.wrapping_add(1);
                    open.unkeyed
                });
                self.round = next.unwrap_or(self.round);
                (self.round % count as u32) as i32
            }
        };
        let place = usize::try_from(partition).ok();
        let open = place.and_then(|place| self.open.get_mut(place));
        let open = open.ok_or(PushError::NoPartition(partition))?;
        let collected = open.batch_of(self.transaction);
        collected.batch.push(record);
        collected.receipts.push(receipt, index);
        collected.is_full =
            collected.batch.bytes() >= self.topic.batch_bytes.load(Ordering::Relaxed);
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
    /// Partitions that have records; what is written from now on is announced again.
    pub fn filled(&self) -> Vec<usize> {
        let open = lock(&self.open);
        self.is_announced.store(false, Ordering::Release);
        let filled = open.iter().enumerate().filter(|(_, open)| !open.is_empty());
        filled.map(|(place, _)| place).collect()
    }

    /// The oldest records of a partition, up to a transaction.
    pub fn take(&self, partition: usize, transaction: u64) -> Option<Collected> {
        let mut open = lock(&self.open);
        let batches = &mut open.get_mut(partition)?.batches;
        batches.front().is_some_and(|batch| batch.transaction <= transaction).then_some(())?;
        batches.pop_front()
    }

    /// True if the partition has records, up to a transaction.
    pub fn has_some(&self, partition: usize, transaction: u64) -> bool {
        let open = lock(&self.open);
        let front = open.get(partition).and_then(|open| open.batches.front());
        front.is_some_and(|batch| batch.transaction <= transaction)
    }

    /// Drops all records.
    pub fn clear(&self) {
        let dropped: Vec<_> =
            lock(&self.open).iter_mut().map(|open| std::mem::take(&mut open.batches)).collect();
        // Outside of the lock: who hears of it may send.
        drop(dropped);
    }

    /// Takes no more records.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// A batch was too large: later ones are smaller.
    pub fn shrink_batches(&self) {
        let half = |bytes: usize| Some((bytes / 2).max(LEAST_BATCH_BYTES));
        let _ = self.batch_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }

    /// The topic may take more by now.
    pub fn grow_batches(&self) {
        let most = self.most_batch_bytes.load(Ordering::Relaxed);
        let twice = |bytes: usize| (bytes < most).then(|| (bytes * 2).min(most));
        let _ = self.batch_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, twice);
    }

    /// The topic has more partitions now.
    pub fn grow(&self, partitions: usize) {
        let mut open = lock(&self.open);
        if partitions > open.len() {
            open.resize_with(partitions, Open::default);
        }
    }
}

impl Open {
    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The batch that the transaction's next record goes into.
    fn batch_of(&mut self, transaction: u64) -> &mut Collected {
        let last = self.batches.iter().rposition(|batch| batch.transaction <= transaction);
        let has_room = |place: &usize| {
            self.batches.get(*place).is_some_and(|b| b.transaction == transaction && !b.is_full)
        };
        let place = last.filter(has_room).unwrap_or_else(|| {
            let place = last.map_or(0, |last| last + 1);
            self.batches.insert(place, Collected { transaction, ..Collected::default() });
            place
        });
        &mut self.batches[place]
    }
}

/// The receipts of a batch's records, in their order.
#[derive(Default)]
pub(crate) struct Receipts(Vec<Run>);

/// Neighbouring records of one receipt.
struct Run {
    receipt: Arc<dyn Receipt>,
    indexes: Vec<u32>,
}

impl Receipts {
    fn push(&mut self, receipt: &Arc<dyn Receipt>, index: u32) {
        match self.0.last_mut().filter(|run| Arc::ptr_eq(&run.receipt, receipt)) {
            Some(run) => run.indexes.push(index),
            None => self.0.push(Run { receipt: Arc::clone(receipt), indexes: vec![index] }),
        }
    }

    pub fn acknowledged(&self) {
        self.0.iter().for_each(|run| run.receipt.acknowledged(&run.indexes));
    }

    pub fn refused(&self, refusal: &Refusal) {
        for run in &self.0 {
            run.indexes.iter().for_each(|index| run.receipt.refused(*index, refusal));
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let (mut first, mut second, mut left) = (Vec::new(), Vec::new(), at);
        for Run { receipt, mut indexes } in self.0 {
            let others = indexes.split_off(left.min(indexes.len()));
            left -= indexes.len();
            if !others.is_empty() {
                second.push(Run { receipt: Arc::clone(&receipt), indexes: others });
            }
            if !indexes.is_empty() {
                first.push(Run { receipt, indexes });
            }
        }
        (Receipts(first), Receipts(second))
    }
}

/// A batch on its way, and who hears of it.
pub(crate) struct Outgoing {
    pub batch: RecordBatch,
    pub receipts: Receipts,
}

impl partition::Batch for Outgoing {
    fn records(&self) -> u32 {
        self.batch.count()
    }

    fn split_at(self, at: u32) -> (Self, Self) {
        let (first, second) = self.batch.split_at(at);
        let (heard, others) = self.receipts.split_at(at as usize);
        (Outgoing { batch: first, receipts: heard }, Outgoing { batch: second, receipts: others })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Receipt for Deaf {
        fn acknowledged(&self, _: &[u32]) {}
        fn refused(&self, _: u32, _: &Refusal) {}
    }

    fn topic() -> Topic {
        Topic::new("t".into(), 0, 1, 1_000, Arc::default())
    }

    fn push(mut sending: Sending<'_>, value: &[u8]) -> Result<(), PushError> {
        let receipt: Arc<dyn Receipt> = Arc::new(Deaf);
        let record = Record { value: Some(value), ..Record::default() };
        sending.push(&record, None, &receipt, 0)
    }

    #[test]
    fn records_of_a_sealed_transaction_come_before_those_of_the_next() {
        let topic = topic();
        let take = |transaction| Some(topic.0.take(0, transaction)?.receipts.0[0].indexes.len());
        push(topic.begin(), b"1").expect("it is open");
        let sealed = Sealed::sealing(&topic.0.transaction);
        push(topic.begin(), b"of the next").expect("it is open");
        push(topic.begin_in(&sealed), b"2").expect("it is open");
        assert_eq!(topic.0.take(0, 0).map(|batch| batch.batch.count()), Some(2));
        assert_eq!((take(0), topic.0.has_some(0, 0)), (None, false));
        assert_eq!(take(1), Some(1));
        push(topic.begin_in(&sealed), b"late").expect("it is open");
        push(topic.begin(), b"of the next").expect("it is open");
        assert_eq!((take(0), take(0), take(1)), (Some(1), None, Some(1)));
    }

    #[test]
    fn batches_shrink_and_grow_up_to_what_the_topic_takes() {
        let topic = topic();
        let size = || topic.0.batch_bytes.load(Ordering::Relaxed);
        topic.0.shrink_batches();
        assert_eq!(size(), LEAST_BATCH_BYTES);
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
