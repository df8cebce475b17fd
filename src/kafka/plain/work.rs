//! The records of a batch that are still to be sent, by partition and in order: a plain struct.
//!
//! A request has at most one run of records per partition, which the broker accepts or refuses as a
//! whole. The next run is sent when the previous one has ended, which keeps the order.

use std::collections::{BTreeMap, VecDeque};

use crate::{Error, record::Refused};

#[derive(Default)]
pub(super) struct Work {
    left: BTreeMap<i32, VecDeque<usize>>,
    refused: Vec<Refused>,
}

impl Work {
    /// The places in the part of what goes to a partition, or can go to none.
    pub fn new(places: impl Iterator<Item = Result<i32, Error>>) -> Self {
        let mut work = Work::default();
        for (index, place) in places.enumerate() {
            match place {
                Ok(partition) => work.left.entry(partition).or_default().push_back(index),
                Err(error) => work.refused.push(Refused { index, error }),
            }
        }
        work
    }

    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Number of records left.
    pub fn left(&self) -> usize {
        self.left.values().map(VecDeque::len).sum()
    }

    /// Partitions with something left.
    pub fn partitions(&self) -> Vec<i32> {
        self.left.keys().copied().collect()
    }

    /// The next run for a partition: of at most so many bytes, or one record.
    pub fn run(&self, partition: i32, most: usize, size: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut bytes = 0;
        let left = self.left.get(&partition).into_iter().flatten().copied();
        let fits = left.enumerate().take_while(|(count, index)| {
            bytes += size(*index);
            *count == 0 || bytes <= most
        });
        fits.map(|(_, index)| index).collect()
    }

    /// The first records of a partition are safe, so many.
    pub fn accepted(&mut self, partition: i32, records: usize) {
        if let Some(left) = self.left.get_mut(&partition) {
            left.drain(..records.min(left.len()));
            if left.is_empty() {
                self.left.remove(&partition);
            }
        }
    }

    /// The first record of a partition will never be taken.
    pub fn refused(&mut self, partition: i32, error: Error) {
        let first = self.left.get(&partition).and_then(|left| left.front().copied());
        self.refused.extend(first.map(|index| Refused { index, error }));
        self.accepted(partition, 1);
    }

    /// The refused records, in order.
    pub fn into_refused(mut self) -> Vec<Refused> {
        self.refused.sort_by_key(|refused| refused.index);
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn refusal() -> Error {
        Error::new(ErrorKind::RecordRefused, "no")
    }

    #[test]
    fn runs_go_in_order_and_end_where_the_bytes_do() {
        let mut work = Work::new([Ok(0), Ok(1), Ok(0), Ok(0)].into_iter());
        assert_eq!(work.partitions(), [0, 1]);
        assert_eq!(work.run(0, 20, |_| 10), [0, 2]);
        assert_eq!(work.run(0, 20, |_| 100), [0], "one record goes, however large");
        work.accepted(0, 2);
        assert_eq!(work.run(0, 20, |_| 10), [3]);
        work.accepted(0, 1);
        work.accepted(1, 1);
        assert!(work.is_done());
    }

    #[test]
    fn what_is_refused_is_named_and_the_rest_goes_on() {
        let mut work = Work::new([Ok(0), Err(refusal()), Ok(0)].into_iter());
        work.accepted(0, 1);
        work.refused(0, refusal());
        assert!(work.is_done());
        let refused: Vec<_> = work.into_refused().iter().map(|refused| refused.index).collect();
        assert_eq!(refused, [1, 2]);
    }
}
