//! Computes the safe position from batches that are done in any order.

use std::collections::VecDeque;

use crate::Lsn;

/// Computes the safe position: the end of the last transaction such that it and all before it are
/// acknowledged. The order in which batches are done does not matter.
///
/// Batches are numbered from 0 without gaps. A done batch waits here until all before it are done.
#[derive(Debug)]
pub struct AckWindow {
    /// Number of the first batch that is not done.
    next_seq: u64,
    /// Batches from `next_seq` on; none for one that is not done.
    waiting: VecDeque<Option<Done>>,
    safe: Lsn,
}

/// A done batch and the end of the last transaction that ends in it.
#[derive(Clone, Copy, Debug)]
struct Done(Option<Lsn>);

/// Error for a batch that was already done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("batch {0} was done already")]
pub struct DoneTwice(pub u64);

impl AckWindow {
    /// Creates a window in which no batch is done and everything up to `start` is safe.
    pub fn new(start: Lsn) -> Self {
        AckWindow { next_seq: 0, waiting: VecDeque::new(), safe: start }
    }

    /// Notes that batch `seq` is done. `commit_end_lsn` is the end of the last transaction that ends
    /// in it.
    ///
    /// # Errors
    /// [`DoneTwice`] if it was done before; the window is then unchanged.
    pub fn done(&mut self, seq: u64, commit_end_lsn: Option<Lsn>) -> Result<(), DoneTwice> {
        let index = seq.checked_sub(self.next_seq).ok_or(DoneTwice(seq))? as usize;
        if index >= self.waiting.len() {
            self.waiting.resize(index + 1, None);
        }
        match self.waiting.get_mut(index) {
            Some(slot @ None) => *slot = Some(Done(commit_end_lsn)),
            _ => return Err(DoneTwice(seq)),
        }
        while let Some(Some(Done(lsn))) = self.waiting.front() {
            // The position never moves back, whatever a batch reports.
            self.safe = self.safe.max(lsn.unwrap_or(Lsn::ZERO));
            self.waiting.pop_front();
            self.next_seq += 1;
        }
        Ok(())
    }

    /// Position up to which everything is acknowledged.
    pub fn safe(&self) -> Lsn {
        self.safe
    }

    /// Number of batches up to the last one that is done, including open ones before it.
    pub fn known(&self) -> u64 {
        self.next_seq + self.waiting.len() as u64
    }

    /// Number of the first batch that is not done.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lsn(n: u64) -> Option<Lsn> {
        Some(Lsn::new(n))
    }

    #[test]
    fn acks_out_of_order_hold_the_safe_position() {
        let mut window = AckWindow::new(Lsn::new(5));
        window.done(1, lsn(20)).expect("first time");
        window.done(2, lsn(30)).expect("first time");
        assert_eq!((window.safe(), window.next_seq()), (Lsn::new(5), 0));
        window.done(0, lsn(10)).expect("first time");
        assert_eq!((window.safe(), window.next_seq()), (Lsn::new(30), 3));
    }

    #[test]
    fn a_batch_without_a_commit_moves_nothing() {
        let mut window = AckWindow::new(Lsn::new(5));
        window.done(0, None).expect("first time");
        assert_eq!((window.safe(), window.next_seq()), (Lsn::new(5), 1));
    }

    #[test]
    fn done_twice_is_an_error_and_changes_nothing() {
        let mut window = AckWindow::new(Lsn::ZERO);
        window.done(0, lsn(10)).expect("first time");
        window.done(2, lsn(30)).expect("first time");
        assert_eq!(window.done(0, lsn(99)), Err(DoneTwice(0)));
        assert_eq!(window.done(2, lsn(99)), Err(DoneTwice(2)));
        assert_eq!(window.safe(), Lsn::new(10));
    }

    proptest! {
        /// Against the definition: after each ack, the safe position is the highest
        /// commit of the longest contiguous prefix of done batches.
        #[test]
        fn safe_is_the_end_of_the_contiguous_prefix(
            order in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle(),
            commits in prop::collection::vec(any::<bool>(), 40),
        ) {
            let commit = |seq: u64| commits[seq as usize].then(|| Lsn::new(100 + seq));
            let mut window = AckWindow::new(Lsn::new(1));
            let mut done = [false; 40];
            for seq in order {
                window.done(seq, commit(seq)).expect("first time");
                done[seq as usize] = true;
                let prefix = done.iter().take_while(|done| **done).count() as u64;
                let safe = (0..prefix).rev().find_map(commit).unwrap_or(Lsn::new(1));
                prop_assert_eq!((window.safe(), window.next_seq()), (safe, prefix));
            }
        }
    }
}
