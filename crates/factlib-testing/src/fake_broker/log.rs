//! The log of one partition: its batches as bytes, its producers, and its transactions.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{
    Code, FirstSequence,
    batch::Batch,
    producer_state::{Producers, Sequence},
};

/// Batches of a partition, in order.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: VecDeque<Stored>,
    bytes: usize,
    end: i64,
    producers: Producers,
    /// First offset of each open transaction, by producer id.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

#[derive(Debug)]
struct Stored {
    offset: i64,
    /// Offset behind the last record.
    end: i64,
    max_timestamp_ms: i64,
    bytes: Bytes,
}

/// An aborted transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
    last_offset: i64,
}

/// Rules of the topic for appending.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppendRules {
    pub first_sequence: FirstSequence,
    pub max_batch_bytes: usize,
    /// Bytes above which the oldest batches are deleted.
    pub retained_bytes: Option<usize>,
    pub leader_epoch: i32,
}

impl Log {
    /// Offset of the first record.
    pub fn start(&self) -> i64 {
        self.batches.front().map_or(self.end, |first| first.offset)
    }

    /// Offset behind the last record.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Offset behind the last record before the first open transaction.
    pub fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// Appends a batch and returns its offset; that of the first attempt for a duplicate.
    ///
    /// # Errors
    /// Returns the code with which a broker refuses the batch.
    pub fn append(&mut self, batch: Batch, rules: &AppendRules) -> Result<i64, Code> {
        if batch.len() > rules.max_batch_bytes {
            return Err(Code::MessageTooLarge);
        }
        match self.producers.check(&batch, rules.first_sequence)? {
            Sequence::Duplicate(offset) => Ok(offset),
            Sequence::Next => {
                if batch.is_transactional() {
                    self.open.entry(batch.producer_id).or_insert(self.end);
                }
                let offset = self.store(batch, rules.leader_epoch);
                self.retain(rules.retained_bytes);
                Ok(offset)
            }
        }
    }

    /// Ends the transaction of a producer.
    pub fn finish(&mut self, marker: Batch, is_committed: bool, leader_epoch: i32) {
        let producer_id = marker.producer_id;
        let last_offset = self.store(marker, leader_epoch);
        let first_offset = self.open.remove(&producer_id);
        if let Some(first_offset) = first_offset.filter(|_| !is_committed) {
            self.aborted.push(Aborted { producer_id, first_offset, last_offset });
        }
    }

    fn store(&mut self, batch: Batch, leader_epoch: i32) -> i64 {
        let offset = self.end;
        self.producers.appended(&batch, offset);
        self.end += i64::from(batch.count);
        self.bytes += batch.len();
        self.batches.push_back(Stored {
            offset,
            end: self.end,
            max_timestamp_ms: batch.max_timestamp_ms,
            bytes: batch.at(offset, leader_epoch),
        });
        offset
    }

    fn retain(&mut self, bytes: Option<usize>) {
        let Some(bytes) = bytes else { return };
        while self.bytes > bytes && self.batches.len() > 1 {
            let oldest = self.batches.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.bytes.len());
        }
    }

    /// Returns whole batches from the one with this offset on, and before `until`. The first one
    /// is returned even if it is larger than `max_bytes`.
    pub fn read(&self, from: i64, until: i64, max_bytes: usize) -> Bytes {
        let first = self.batches.partition_point(|batch| batch.end <= from);
        let mut read = BytesMut::new();
        for batch in self.batches.range(first..) {
            let is_enough = !read.is_empty() && read.len() + batch.bytes.len() > max_bytes;
            if batch.offset >= until || is_enough {
                break;
            }
            read.extend_from_slice(&batch.bytes);
        }
        read.freeze()
    }

    /// Returns the aborted transactions with records in this range of offsets.
    pub fn aborted(&self, from: i64, until: i64) -> impl Iterator<Item = Aborted> {
        let all = self.aborted.iter().copied();
        all.filter(move |aborted| aborted.last_offset >= from && aborted.first_offset < until)
    }

    /// Returns time and offset of the first batch with a record of this time or a later one.
    pub fn at_time(&self, timestamp_ms: i64) -> Option<(i64, i64)> {
        let found = self.batches.iter().find(|batch| batch.max_timestamp_ms >= timestamp_ms);
        found.map(|batch| (batch.max_timestamp_ms, batch.offset))
    }

    pub fn forget_producers(&mut self) {
        self.producers.forget();
    }
}
