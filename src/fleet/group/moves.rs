//! The turns in which pipelines stop that move to other instances: a plain struct, under the `Sharing`.
//!
//! If all of them stopped at once, all would start at once elsewhere, and each would stand still until
//! the last one runs. So some stop together, and the next ones when the group has answered, which
//! starts the first ones elsewhere.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use actix_rt::time::Instant;

/// The most pipelines that stop together, unless there would be more than [`MOST_MOVES`] rounds.
const MOVED_TOGETHER: usize = 8;
const MOST_MOVES: usize = 10;

/// Longest wait for the group's answer before the next pipelines stop.
const NEXT_MOVE: Duration = Duration::from_secs(2);

/// Pipelines that are to stop because they move: some stop, and the others run until it is their turn.
#[derive(Default)]
pub(super) struct Moves {
    waiting: VecDeque<String>,
    stopping: BTreeSet<String>,
    /// Number that stop together.
    together: usize,
    /// Time at which the next ones stop, if the group has not answered.
    next_at: Option<Instant>,
}

impl Moves {
    /// Adds pipelines that move.
    pub fn add(&mut self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        self.waiting.extend(names);
        self.together = MOVED_TOGETHER.max(self.waiting.len().div_ceil(MOST_MOVES));
    }

    /// Time at which the next ones stop, if the group has not answered until then.
    pub fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Forgets all moves; returns the pipelines that have not been told to stop.
    pub fn take_waiting(&mut self) -> VecDeque<String> {
        std::mem::take(self).waiting
    }

    /// The pipelines whose turn it is; none while others stop.
    pub fn next(&mut self) -> Vec<String> {
        if !self.stopping.is_empty() {
            return Vec::new();
        }
        self.next_at = None;
        let next: Vec<_> = self.waiting.drain(..self.together.min(self.waiting.len())).collect();
        self.stopping.extend(next.iter().cloned());
        next
    }

    /// Notes the end of a pipeline; true if it was the last one of those that stop together.
    pub fn ended(&mut self, name: &str) -> bool {
        let is_last = self.stopping.remove(name) && self.stopping.is_empty();
        if is_last && !self.waiting.is_empty() {
            self.next_at = Some(Instant::now() + NEXT_MOVE);
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("p{n}")).collect()
    }

    #[test]
    fn some_stop_together_and_the_others_wait_for_them() {
        let mut moves = Moves::default();
        moves.add(names(20));
        let first = moves.next();
        assert_eq!(first.len(), 8);
        assert!(moves.next().is_empty(), "it is not their turn");
        let (last, others) = first.split_last().expect("eight");
        assert!(others.iter().all(|name| !moves.ended(name)));
        assert!(!moves.ended("another") && moves.next_at().is_none());
        assert!(moves.ended(last) && moves.next_at().is_some());
        assert_eq!(moves.next().len(), 8);
        assert!(moves.next_at().is_none());
        assert_eq!(moves.take_waiting().len(), 4);
        assert!(moves.next().is_empty());
    }

    #[test]
    fn many_take_no_more_turns() {
        let mut moves = Moves::default();
        moves.add(names(200));
        let mut turns = 0;
        loop {
            // What comes between two turns changes nothing.
            moves.add(Vec::new());
            let next = moves.next();
            if next.is_empty() {
                break;
            }
            turns += 1;
            for name in next {
                moves.ended(&name);
            }
        }
        assert_eq!((turns, moves.next_at()), (10, None));
    }
}
