//! Collects the records of a partition in batches until the driver takes them.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    partition,
    receipt::{Receipt, Receipts},
    record_batch::{BatchBuilder, Record, RecordBatch},
};

/// Maximum room that a new batch reserves.
const MAX_ROOM: usize = 256 << 10;

/// Pending batches of one partition.
#[derive(Default)]
pub(super) struct OpenPartition {
    /// Batches ordered by transaction, then by time of pushing.
    batches: VecDeque<PendingBatch>,
    /// Bytes of the last batch: the next one probably needs as many.
    room: usize,
    /// Round-robin counter for records without a key.
    unkeyed: u32,
}

/// Records that the driver has not taken yet, and their receipts.
#[derive(Default)]
pub(crate) struct PendingBatch {
    pub batch: BatchBuilder,
    pub receipts: Receipts,
    transaction: u64,
    is_full: bool,
}

impl OpenPartition {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns the batch for the transaction's next record, and creates it if needed.
    fn batch_of(&mut self, transaction: u64) -> &mut PendingBatch {
        let last = self.batches.iter().rposition(|batch| batch.transaction <= transaction);
        let has_room = |place: &usize| {
            self.batches.get(*place).is_some_and(|b| b.transaction == transaction && !b.is_full)
        };
        let place = last.filter(has_room).unwrap_or_else(|| {
            let place = last.map_or(0, |last| last + 1);
            let batch = BatchBuilder::with_room(self.room);
            let pending = PendingBatch { batch, transaction, ..PendingBatch::default() };
            self.batches.insert(place, pending);
            place
        });
        &mut self.batches[place]
    }

    /// Appends a record to the last batch of its transaction; the batch is full at `max_bytes`.
    pub fn push(
        &mut self,
        record: &Record<'_>,
        receipt: &Arc<dyn Receipt>,
        index: u32,
        transaction: u64,
        max_bytes: usize,
    ) {
        let pending = self.batch_of(transaction);
        pending.batch.push(record);
        pending.receipts.push(receipt, index);
        pending.is_full = pending.batch.bytes() >= max_bytes;
    }

    /// Takes the oldest batch, if its transaction is not later than `transaction`.
    pub fn take(&mut self, transaction: u64) -> Option<PendingBatch> {
        let taken = self.has_records(transaction).then(|| self.batches.pop_front())??;
        self.room = taken.batch.bytes().min(MAX_ROOM);
        Some(taken)
    }

    /// Takes all batches.
    pub fn take_all(&mut self) -> Vec<PendingBatch> {
        std::mem::take(&mut self.batches).into()
    }

    /// Returns true if there are records of this transaction or an earlier one.
    pub fn has_records(&self, transaction: u64) -> bool {
        self.batches.front().is_some_and(|batch| batch.transaction <= transaction)
    }

    /// Returns the next number for a record without a key.
    pub fn next_in_turn(&mut self) -> u32 {
        self.unkeyed = self.unkeyed.wrapping_add(1);
        self.unkeyed
    }
}

/// A finished batch, and the receipts of its records.
pub(crate) struct Outgoing {
    pub batch: RecordBatch,
    pub receipts: Receipts,
    /// Offset of its first record, once a broker has said it.
    pub base_offset: Option<i64>,
}

impl Outgoing {
    pub fn new(batch: RecordBatch, receipts: Receipts) -> Self {
        Outgoing { batch, receipts, base_offset: None }
    }
}

impl partition::Batch for Outgoing {
    fn records(&self) -> u32 {
        self.batch.count()
    }

    fn split_at(self, at: u32) -> (Self, Self) {
        let (first, second) = self.batch.split_at(at);
        let (first_receipts, second_receipts) = self.receipts.split_at(at as usize);
        (Outgoing::new(first, first_receipts), Outgoing::new(second, second_receipts))
    }
}
