//! How far delivery is behind the database.

use std::{collections::VecDeque, time::SystemTime};

use factlib_postgres::pgoutput::unix_ns;
use serde::Serialize;

use crate::Lsn;

/// How far delivery is behind, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Lag {
    /// WAL from what is delivered to the end of it, as far as that is known.
    pub bytes: u64,
    /// Events that were read and are not delivered.
    pub events: u64,
    /// How long ago the oldest transaction that was read and is not delivered was committed,
    /// by this machine's clock and PostgreSQL's; 0 where all is delivered. None while nothing
    /// is read, or much WAL is not read yet, as nobody then knows.
    pub seconds: Option<f64>,
}

/// Maximum number of batches tracked individually; later ones are merged into the last.
const MOST: usize = 4_096;

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

/// Commit times of the transactions that are on their way.
#[derive(Default)]
pub(super) struct OnTheWay {
    /// Ends of batches, and the first commit in each, in microseconds since 2000-01-01.
    batches: VecDeque<(Lsn, i64)>,
    /// Of a transaction whose end was not read yet.
    open: Option<i64>,
}

impl OnTheWay {
    /// Notes a batch that was read, whose first transaction committed at `committed_us`. Its last
    /// ends at `end`; none where all of the batch is of one that goes on.
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
        let full = self.batches.len() >= MOST;
        match (end, committed) {
            // What is read again after a failure is there already.
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

    /// Everything up to `lsn` is delivered.
    pub fn delivered(&mut self, lsn: Lsn) {
        while self.batches.front().is_some_and(|(end, _)| *end <= lsn) {
            self.batches.pop_front();
        }
    }

    /// All of it is read again.
    pub fn clear(&mut self) {
        *self = OnTheWay::default();
    }

    /// The age of the oldest; none where nothing is on its way.
    pub fn seconds(&self, now: SystemTime) -> Option<f64> {
        let oldest = self.batches.front().map(|(_, committed)| *committed).or(self.open)?;
        let committed = u64::try_from(unix_ns(oldest)).unwrap_or_default();
        let committed = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(committed);
        // Of a clock that is ahead of ours, it was just now.
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
    fn at(on_the_way: &OnTheWay, seconds: u64) -> Option<f64> {
        on_the_way.seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800 + seconds))
    }

    #[test]
    fn the_oldest_that_is_not_delivered_counts() {
        let mut on_the_way = OnTheWay::default();
        assert_eq!(at(&on_the_way, 10), None);
        on_the_way.read(end(10), Some(SECOND), WHOLE);
        on_the_way.read(end(20), Some(3 * SECOND), WHOLE);
        // Read again, it is not on its way twice.
        on_the_way.read(end(20), Some(3 * SECOND), WHOLE);
        assert_eq!(at(&on_the_way, 10), Some(9.0));
        on_the_way.delivered(Lsn::new(15));
        assert_eq!(at(&on_the_way, 10), Some(7.0));
        assert_eq!(at(&on_the_way, 2), Some(0.0), "the server's clock is ahead");
        on_the_way.delivered(Lsn::new(20));
        assert_eq!(at(&on_the_way, 10), None);
    }

    #[test]
    fn a_long_wait_takes_no_more_memory() {
        let mut on_the_way = OnTheWay::default();
        for n in 1..=2 * MOST as u64 {
            on_the_way.read(end(n), Some(n.cast_signed() * SECOND), WHOLE);
        }
        assert_eq!(on_the_way.batches.len(), MOST);
        on_the_way.delivered(Lsn::new(MOST as u64));
        let age = at(&on_the_way, 3 * MOST as u64);
        assert_eq!(age, Some((2 * MOST) as f64), "as old as the first that is not delivered");
        on_the_way.delivered(Lsn::new(2 * MOST as u64));
        assert_eq!(at(&on_the_way, 0), None);
    }

    #[test]
    fn a_transaction_that_is_read_in_parts_is_as_old_as_its_commit() {
        let mut on_the_way = OnTheWay::default();
        on_the_way.read(None, Some(SECOND), inside(SECOND));
        on_the_way.read(None, None, TransactionBoundary::Unchanged);
        assert_eq!(at(&on_the_way, 5), Some(4.0));
        on_the_way.delivered(Lsn::new(9));
        on_the_way.read(end(30), Some(4 * SECOND), WHOLE);
        assert_eq!(at(&on_the_way, 5), Some(4.0));
        on_the_way.delivered(Lsn::new(30));
        assert_eq!(at(&on_the_way, 5), None);
    }

    #[test]
    fn a_transaction_that_begins_behind_another_ones_end_is_on_its_way_too() {
        let mut on_the_way = OnTheWay::default();
        // The end of one and the beginning of the next, and then the rest of that.
        on_the_way.read(end(10), Some(SECOND), inside(2 * SECOND));
        on_the_way.delivered(Lsn::new(10));
        assert_eq!(at(&on_the_way, 5), Some(3.0), "it is open");
        on_the_way.read(end(20), None, WHOLE);
        assert_eq!(at(&on_the_way, 5), Some(3.0));
        on_the_way.delivered(Lsn::new(20));
        assert_eq!(at(&on_the_way, 5), None);
    }

    #[test]
    fn a_keepalive_inside_of_a_transaction_does_not_end_it() {
        let mut on_the_way = OnTheWay::default();
        on_the_way.read(None, Some(SECOND), inside(SECOND));
        on_the_way.read(end(10), None, TransactionBoundary::Unchanged);
        on_the_way.delivered(Lsn::new(10));
        on_the_way.read(end(20), None, WHOLE);
        assert_eq!(at(&on_the_way, 5), Some(4.0));
    }
}
