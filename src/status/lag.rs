//! Measures how far delivery is behind the database.

use std::{collections::VecDeque, time::SystemTime};

use factlib_postgres::pgoutput::unix_ns;
use serde::Serialize;

use crate::Lsn;

/// How far delivery is behind, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Lag {
    /// Bytes of WAL between the delivered position and the WAL's end, as far as that is known.
    pub bytes: u64,
    /// Events that were read and are not delivered.
    pub events: u64,
    /// Age of the oldest transaction that was read and is not delivered, by this machine's clock
    /// and PostgreSQL's; 0 if all is delivered. None while nothing is read or much WAL is unread,
    /// because it is then unknown.
    pub seconds: Option<f64>,
}

/// Maximum number of batches tracked individually; later ones are merged into the last.
const MAX_BATCHES: usize = 4_096;

/// The end of a batch, relative to transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TransactionBoundary {
    /// No transaction begins or ends in the batch.
    #[default]
    Unchanged,
    /// It ends between two transactions.
    Between,
    /// It ends inside a transaction that was committed at this time.
    Inside { committed_us: i64 },
}

/// Commit times of the batches that are not delivered.
#[derive(Default)]
pub(super) struct UndeliveredBatches {
    /// End and first commit time of each batch, in microseconds since 2000-01-01.
    batches: VecDeque<(Lsn, i64)>,
    /// Commit time of a transaction whose end was not read yet.
    open: Option<i64>,
}

impl UndeliveredBatches {
    /// Notes a batch that was read: the commit time of its first transaction and the end of its last.
    /// `end` is none if the whole batch belongs to a transaction that continues.
    pub fn read(
        &mut self,
        end: Option<Lsn>,
        committed_us: Option<i64>,
        boundary: TransactionBoundary,
    ) {
        let committed = self.open.or(committed_us);
        match boundary {
            TransactionBoundary::Unchanged => {}
            TransactionBoundary::Between => self.open = None,
            TransactionBoundary::Inside { committed_us } => self.open = Some(committed_us),
        }
        let full = self.batches.len() >= MAX_BATCHES;
        match (end, committed) {
            // A batch that is read again after a failure is here already.
            (Some(end), Some(committed))
                if self.batches.back().is_none_or(|(last, _)| *last < end) =>
            {
                match self.batches.back_mut() {
                    Some((last, _)) if full => *last = end,
                    _ => self.batches.push_back((end, committed)),
                }
            }
            _ => {}
        }
    }

    /// Drops the batches that are delivered, up to `lsn`.
    pub fn delivered(&mut self, lsn: Lsn) {
        while self.batches.front().is_some_and(|(end, _)| *end <= lsn) {
            self.batches.pop_front();
        }
    }

    /// Forgets all batches, because they will be read again.
    pub fn clear(&mut self) {
        *self = UndeliveredBatches::default();
    }

    /// Age of the oldest transaction; none if all is delivered.
    pub fn seconds(&self, now: SystemTime) -> Option<f64> {
        let oldest = self.batches.front().map(|(_, committed)| *committed).or(self.open)?;
        let committed = u64::try_from(unix_ns(oldest)).unwrap_or_default();
        let committed = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(committed);
        // If the server's clock is ahead of ours, the age is 0.
        Some(now.duration_since(committed).unwrap_or_default().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: i64 = 1_000_000;
    /// A batch that ends between two transactions.
    const WHOLE: TransactionBoundary = TransactionBoundary::Between;

    /// A batch that ends inside of a transaction of this time.
    fn inside(committed_us: i64) -> TransactionBoundary {
        TransactionBoundary::Inside { committed_us }
    }

    fn end(n: u64) -> Option<Lsn> {
        Some(Lsn::new(n))
    }

    /// The age so many seconds after PostgreSQL's epoch.
    fn at(undelivered_batches: &UndeliveredBatches, seconds: u64) -> Option<f64> {
        undelivered_batches
            .seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800 + seconds))
    }

    #[test]
    fn the_oldest_undelivered_transaction_counts() {
        let mut undelivered_batches = UndeliveredBatches::default();
        assert_eq!(at(&undelivered_batches, 10), None);
        undelivered_batches.read(end(10), Some(SECOND), WHOLE);
        undelivered_batches.read(end(20), Some(3 * SECOND), WHOLE);
        // A batch that is read again counts once.
        undelivered_batches.read(end(20), Some(3 * SECOND), WHOLE);
        assert_eq!(at(&undelivered_batches, 10), Some(9.0));
        undelivered_batches.delivered(Lsn::new(15));
        assert_eq!(at(&undelivered_batches, 10), Some(7.0));
        assert_eq!(at(&undelivered_batches, 2), Some(0.0), "the server's clock is ahead");
        undelivered_batches.delivered(Lsn::new(20));
        assert_eq!(at(&undelivered_batches, 10), None);
    }

    #[test]
    fn a_long_wait_takes_no_more_memory() {
        let mut undelivered_batches = UndeliveredBatches::default();
        for n in 1..=2 * MAX_BATCHES as u64 {
            undelivered_batches.read(end(n), Some(n.cast_signed() * SECOND), WHOLE);
        }
        assert_eq!(undelivered_batches.batches.len(), MAX_BATCHES);
        undelivered_batches.delivered(Lsn::new(MAX_BATCHES as u64));
        let age = at(&undelivered_batches, 3 * MAX_BATCHES as u64);
        assert_eq!(
            age,
            Some((2 * MAX_BATCHES) as f64),
            "as old as the first that is not delivered"
        );
        undelivered_batches.delivered(Lsn::new(2 * MAX_BATCHES as u64));
        assert_eq!(at(&undelivered_batches, 0), None);
    }

    #[test]
    fn a_transaction_that_is_read_in_parts_is_as_old_as_its_commit() {
        let mut undelivered_batches = UndeliveredBatches::default();
        undelivered_batches.read(None, Some(SECOND), inside(SECOND));
        undelivered_batches.read(None, None, TransactionBoundary::Unchanged);
        assert_eq!(at(&undelivered_batches, 5), Some(4.0));
        undelivered_batches.delivered(Lsn::new(9));
        undelivered_batches.read(end(30), Some(4 * SECOND), WHOLE);
        assert_eq!(at(&undelivered_batches, 5), Some(4.0));
        undelivered_batches.delivered(Lsn::new(30));
        assert_eq!(at(&undelivered_batches, 5), None);
    }

    #[test]
    fn a_transaction_that_begins_in_the_batch_of_another_ones_end_counts_too() {
        let mut undelivered_batches = UndeliveredBatches::default();
        // The end of one and the beginning of the next, and then the rest of that.
        undelivered_batches.read(end(10), Some(SECOND), inside(2 * SECOND));
        undelivered_batches.delivered(Lsn::new(10));
        assert_eq!(at(&undelivered_batches, 5), Some(3.0), "it is open");
        undelivered_batches.read(end(20), None, WHOLE);
        assert_eq!(at(&undelivered_batches, 5), Some(3.0));
        undelivered_batches.delivered(Lsn::new(20));
        assert_eq!(at(&undelivered_batches, 5), None);
    }

    #[test]
    fn a_keepalive_inside_of_a_transaction_does_not_end_it() {
        let mut undelivered_batches = UndeliveredBatches::default();
        undelivered_batches.read(None, Some(SECOND), inside(SECOND));
        undelivered_batches.read(end(10), None, TransactionBoundary::Unchanged);
        undelivered_batches.delivered(Lsn::new(10));
        undelivered_batches.read(end(20), None, WHOLE);
        assert_eq!(at(&undelivered_batches, 5), Some(4.0));
    }
}
