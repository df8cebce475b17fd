//! Tells the owners of records what became of each record.

use std::{fmt, sync::Arc};

use crate::error::{Code, CodeName};

/// Is told once per record what became of it. Runs on the driver's task, so it must not block.
///
/// If a receipt is dropped before all its records have a result, the results of the others are
/// unknown: their topic was closed, their transaction was aborted, or the driver was dropped.
pub trait Receipt: Send + Sync + 'static {
    /// Kafka has acknowledged the records with these indexes.
    fn acknowledged(&self, indexes: &[u32]);

    /// Kafka has acknowledged the records with these indexes, which it appended at `place` and
    /// behind it, in this order. Calls [`acknowledged`](Self::acknowledged) by default.
    fn appended(&self, indexes: &[u32], _place: Appended) {
        self.acknowledged(indexes);
    }

    /// Kafka has refused the record with this index for good.
    fn refused(&self, index: u32, refusal: &Refusal);

    /// Returns true if no record behind this refused one may be sent. Asked before
    /// [`refused`](Self::refused).
    ///
    /// The topic then accepts no more records. The records before the refused one are still sent,
    /// and so are the records of other partitions; those behind it are
    /// [not sent](Self::not_sent). When all have a result, the topic closes, and it can be opened
    /// again to send the refused record and those behind it once more.
    fn stops(&self, _index: u32, _refusal: &Refusal) -> bool {
        false
    }

    /// The records with these indexes stand behind one that [stopped](Self::stops) their
    /// partition, and are not sent. If the answer to an earlier attempt was lost, Kafka may have
    /// them.
    fn not_sent(&self, _indexes: &[u32]) {}
}

/// The place of the first of consecutive records that Kafka has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The partition.
    pub partition: i32,
    /// The offset. None if the broker has forgotten it, because only an earlier attempt, whose
    /// answer was lost, appended the records.
    pub offset: Option<i64>,
}

/// Reason why a broker refused a record for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Kafka's error code.
    pub code: Code,
    /// The broker's message.
    pub message: Option<String>,
}

impl Refusal {
    /// Creates a refusal from a broker's error code and message.
    pub fn new(code: Code, message: Option<String>) -> Self {
        Refusal { code, message }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", CodeName(self.code)),
            None => write!(f, "{}", CodeName(self.code)),
        }
    }
}

impl std::error::Error for Refusal {}

/// The receipts of a batch's records, in their order.
#[derive(Default)]
pub(crate) struct Receipts(Vec<Run>);

/// Consecutive records with the same receipt.
struct Run {
    receipt: Arc<dyn Receipt>,
    indexes: Vec<u32>,
}

impl Receipts {
    pub fn push(&mut self, receipt: &Arc<dyn Receipt>, index: u32) {
        match self.0.last_mut().filter(|run| Arc::ptr_eq(&run.receipt, receipt)) {
            Some(run) => run.indexes.push(index),
            None => self.0.push(Run { receipt: Arc::clone(receipt), indexes: vec![index] }),
        }
    }

    /// Tells the owners that the batch was appended, its first record at this offset.
    pub fn acknowledged(&self, partition: i32, base_offset: Option<i64>) {
        let mut offset = base_offset;
        for run in &self.0 {
            run.receipt.appended(&run.indexes, Appended { partition, offset });
            offset = offset.map(|offset| offset + run.indexes.len() as i64);
        }
    }

    pub fn refused(&self, refusal: &Refusal) {
        for run in &self.0 {
            run.indexes.iter().for_each(|index| run.receipt.refused(*index, refusal));
        }
    }

    pub fn not_sent(&self) {
        self.0.iter().for_each(|run| run.receipt.not_sent(&run.indexes));
    }

    /// Returns true if nothing behind the record at this place of the batch may be sent.
    pub fn stops(&self, place: u32, refusal: &Refusal) -> bool {
        let mut place = place as usize;
        for run in &self.0 {
            match run.indexes.get(place) {
                Some(index) => return run.receipt.stops(*index, refusal),
                None => place -= run.indexes.len(),
            }
        }
        false
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.indexes.len()).sum()
    }

    pub fn split_at(self, at: usize) -> (Self, Self) {
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
