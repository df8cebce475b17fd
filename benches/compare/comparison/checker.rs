//! Holds what was read from the topics against what was committed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
};

use super::event::AGGREGATES;

/// Numbers of the events of a run that were emitted.
#[derive(Debug, Default)]
pub struct Emitted {
    pub committed: BTreeSet<u64>,
    /// Their commit had no answer: they may be there or not.
    pub in_doubt: HashSet<u64>,
}

impl Emitted {
    /// Returns the events of a backlog, all of them committed.
    pub fn all(facts: u64) -> Self {
        Emitted { committed: (0..facts).collect(), in_doubt: HashSet::new() }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Events that were committed.
    pub committed: usize,
    /// Committed, and in no topic.
    pub lost: usize,
    /// Records beside the first one of an event.
    pub repeated: usize,
    /// Events whose first record came after the first record of a later event of their aggregate.
    pub out_of_order: usize,
    /// Records of events that nobody emitted.
    pub foreign: usize,
}

/// Judges the numbers of the records, in the order of their partition.
pub fn check(emitted: &Emitted, records: impl IntoIterator<Item = u64>) -> Verdict {
    let mut verdict = Verdict { committed: emitted.committed.len(), ..Verdict::default() };
    let mut delivered = HashSet::new();
    let mut latest: HashMap<u64, u64> = HashMap::new();
    for number in records {
        if !emitted.committed.contains(&number) && !emitted.in_doubt.contains(&number) {
            verdict.foreign += 1;
        } else if !delivered.insert(number) {
            verdict.repeated += 1;
        } else {
            let latest = latest.entry(number % AGGREGATES).or_insert(number);
            if number < *latest {
                verdict.out_of_order += 1;
            }
            *latest = number.max(*latest);
        }
    }
    verdict.lost = emitted.committed.iter().filter(|number| !delivered.contains(number)).count();
    verdict
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { committed, lost, repeated, out_of_order, foreign } = self;
        write!(
            f,
            "{committed} committed, {lost} lost, {repeated} repeated, {out_of_order} out of order, \
             {foreign} foreign"
        )
    }
}
