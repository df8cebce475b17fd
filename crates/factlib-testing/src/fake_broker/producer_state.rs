//! Remembers what each producer sent to a partition, and detects duplicates and gaps by it, as
//! Kafka's `ProducerStateManager` does.

use std::collections::{HashMap, VecDeque};

use super::{
    Code, FirstSequence,
    batch::{Batch, advanced},
};

/// Batches of a producer that a broker recognises when they come again.
const REMEMBERED_BATCHES: usize = 5;

/// Producers of one partition.
#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<i64, Producer>);

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// Newest last; all of the present epoch.
    batches: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    base_sequence: i32,
    last_sequence: i32,
    offset: i64,
}

/// Result of a check that found no fault.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    /// The batch is the next one, or its producer is not idempotent.
    Next,
    /// The batch was appended before, at this offset.
    Duplicate(i64),
}

impl Producers {
    /// Checks epoch and sequence of a batch.
    ///
    /// # Errors
    /// Returns the code with which a broker refuses the batch.
    pub fn check(&self, batch: &Batch, rule: FirstSequence) -> Result<Sequence, Code> {
        if batch.producer_id < 0 {
            return Ok(Sequence::Next);
        }
        let Some(known) = self.0.get(&batch.producer_id) else {
            let is_accepted = batch.base_sequence == 0 || rule == FirstSequence::Any;
            return is_accepted.then_some(Sequence::Next).ok_or(Code::OutOfOrderSequenceNumber);
        };
        if batch.epoch < known.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        let is_present = batch.epoch == known.epoch;
        let sequences = (batch.base_sequence, batch.last_sequence());
        let mut remembered = known.batches.iter().filter(|_| is_present);
        let same = remembered.find(|old| (old.base_sequence, old.last_sequence) == sequences);
        if let Some(same) = same {
            return Ok(Sequence::Duplicate(same.offset));
        }
        let newest = known.batches.back().filter(|_| is_present);
        let expected = newest.map_or(0, |newest| advanced(newest.last_sequence, 1));
        match batch.base_sequence == expected {
            true => Ok(Sequence::Next),
            false => Err(Code::OutOfOrderSequenceNumber),
        }
    }

    /// Remembers a batch that was appended.
    pub fn appended(&mut self, batch: &Batch, offset: i64) {
        if batch.producer_id < 0 {
            return;
        }
        let empty = || Producer { epoch: batch.epoch, batches: VecDeque::new() };
        let producer = self.0.entry(batch.producer_id).or_insert_with(empty);
        if producer.epoch < batch.epoch {
            *producer = empty();
        }
        // The end of a transaction has no sequence number.
        if batch.is_control() {
            return;
        }
        if producer.batches.len() == REMEMBERED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Remembered {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            offset,
        });
    }

    /// Forgets all producers, as a broker does `producer.id.expiration.ms` after their last batch.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, count: i32) -> Batch {
        let mut batch = Batch::marker(7, epoch, true, 0);
        (batch.base_sequence, batch.count) = (base_sequence, count);
        batch.into_data()
    }

    fn push(producers: &mut Producers, batch: &Batch, offset: i64) {
        assert_eq!(producers.check(batch, FirstSequence::Zero), Ok(Sequence::Next));
        producers.appended(batch, offset);
    }

    #[test]
    fn the_last_five_batches_are_duplicates_and_older_ones_are_out_of_order() {
        let mut producers = Producers::default();
        (0..6).for_each(|n| push(&mut producers, &batch(0, n * 2, 2), 100 + i64::from(n)));
        let check = |sequence| producers.check(&batch(0, sequence, 2), FirstSequence::Any);
        assert_eq!(check(0), Err(Code::OutOfOrderSequenceNumber));
        assert_eq!(check(2), Ok(Sequence::Duplicate(101)));
        assert_eq!(check(10), Ok(Sequence::Duplicate(105)));
        assert_eq!(check(12), Ok(Sequence::Next));
        assert_eq!(check(14), Err(Code::OutOfOrderSequenceNumber));
    }

    #[test]
    fn the_first_sequence_is_checked_by_the_new_rule_only() {
        let mut producers = Producers::default();
        let first = batch(0, 5, 1);
        assert_eq!(producers.check(&first, FirstSequence::Any), Ok(Sequence::Next));
        let refused = producers.check(&first, FirstSequence::Zero);
        assert_eq!(refused, Err(Code::OutOfOrderSequenceNumber));
        push(&mut producers, &batch(0, 0, 1), 0);
        producers.forget();
        assert_eq!(producers.check(&first, FirstSequence::Any), Ok(Sequence::Next));
    }

    #[test]
    fn a_new_epoch_starts_at_0_and_ends_the_old_one() {
        let mut producers = Producers::default();
        push(&mut producers, &batch(0, 0, 3), 0);
        let check = |producers: &Producers, epoch, sequence| {
            producers.check(&batch(epoch, sequence, 1), FirstSequence::Any)
        };
        assert_eq!(check(&producers, 1, 3), Err(Code::OutOfOrderSequenceNumber));
        push(&mut producers, &batch(1, 0, 1), 3);
        assert_eq!(check(&producers, 0, 3), Err(Code::InvalidProducerEpoch));
        assert_eq!(check(&producers, 1, 1), Ok(Sequence::Next));
    }

    #[test]
    fn sequences_start_again_behind_the_largest() {
        let mut producers = Producers::default();
        let rule = FirstSequence::Any;
        producers.appended(&batch(0, i32::MAX - 1, 2), 0);
        assert_eq!(producers.check(&batch(0, 0, 1), rule), Ok(Sequence::Next));
        producers.appended(&batch(0, 0, 1), 2);
        producers.appended(&batch(0, 1, 1), 3);
        let again = producers.check(&batch(0, i32::MAX - 1, 2), rule);
        assert_eq!(again, Ok(Sequence::Duplicate(0)));
    }
}
