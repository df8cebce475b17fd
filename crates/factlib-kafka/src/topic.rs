//! A topic as its senders see it: records go into the open batch of their partition.
//!
//! Senders write into it on their own threads, the [driver](crate::driver) takes batches out.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    error::Code,
    partition, partitioner,
    record_batch::{BatchBuilder, Record, RecordBatch},
};

/// Learns how records ended, each once; on the driver's task, which must not be held up.
pub trait Receipt: Send + Sync + 'static {
    /// This number of further records is safe.
    fn acknowledged(&self, records: u32);

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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{:?}: {message}", self.code),
            None => write!(f, "{:?}", self.code),
        }
    }
}

/// The record asks for a partition that the topic does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the topic has no partition {0}")]
pub struct NoPartition(pub i32);

/// Sends to one topic; clones send to the same.
#[derive(Clone)]
pub struct Topic(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub name: Arc<str>,
    /// Its place among the driver's topics.
    pub place: usize,
    batch_bytes: usize,
    open: Mutex<Vec<Open>>,
    /// The driver knows that there is something.
    is_announced: AtomicBool,
    announced: Arc<Announced>,
}

/// Topics with new records, and the driver's alarm.
#[derive(Default)]
pub(crate) struct Announced {
    pub places: Mutex<Vec<usize>>,
    pub alarm: Notify,
}

impl Announced {
    pub fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *lock(&self.places))
    }
}

/// Records that a partition's senders have written, and nobody has taken yet.
#[derive(Default)]
struct Open {
    full: VecDeque<Collected>,
    batch: Collected,
    /// Records without a key go round; where the next one goes is up to this.
    unkeyed: u32,
}

/// Records, and who wants to know of them.
#[derive(Default)]
pub(crate) struct Collected {
    pub batch: BatchBuilder,
    pub receipts: Receipts,
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
        let (open, is_announced) = (Mutex::new(open), AtomicBool::new(false));
        Topic(Arc::new(Shared { name, place, batch_bytes, open, is_announced, announced }))
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Begins to send: records that are pushed go out together when this is dropped.
    pub fn begin(&self) -> Sending<'_> {
        Sending { topic: &self.0, open: lock(&self.0.open), round: 0 }
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
    /// A partition that is not there; nothing is written then.
    pub fn push(
        &mut self,
        record: &Record<'_>,
        partition: Option<i32>,
        receipt: &Arc<dyn Receipt>,
        index: u32,
    ) -> Result<(), NoPartition> {
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
        let open = open.ok_or(NoPartition(partition))?;
        let collected = &mut open.batch;
        collected.batch.push(record);
        collected.receipts.push(receipt, index);
        if collected.batch.bytes() >= self.topic.batch_bytes {
            open.full.push_back(std::mem::take(&mut open.batch));
        }
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

    /// The oldest records of a partition.
    pub fn take(&self, partition: usize) -> Option<Collected> {
        let mut open = lock(&self.open);
        let open = open.get_mut(partition)?;
        let some = |collected: Collected| (!collected.batch.is_empty()).then_some(collected);
        open.full.pop_front().or_else(|| some(std::mem::take(&mut open.batch)))
    }

    /// True if the partition has records.
    pub fn has_some(&self, partition: usize) -> bool {
        lock(&self.open).get(partition).is_some_and(|open| !open.is_empty())
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
        self.full.is_empty() && self.batch.batch.is_empty()
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
        self.0.iter().for_each(|run| run.receipt.acknowledged(run.indexes.len() as u32));
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
