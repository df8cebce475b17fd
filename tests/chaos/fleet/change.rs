//! A change of the fleet, and how long it held up the facts of the pipelines that moved.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use factlib::Lsn;

use super::deliveries::Deliveries;

/// Facts that were emitted so long before a change may be held up by it.
const BEFORE_MS: i64 = 300;
/// The most facts of one transaction, whose rest may come again.
const TRANSACTION: u64 = 1;

/// Who runs what.
#[derive(Debug, Default)]
pub struct Share(BTreeMap<String, BTreeSet<String>>);

impl Share {
    pub fn add(&mut self, instance: &str, pipelines: BTreeSet<String>) {
        self.0.insert(instance.to_owned(), pipelines);
    }

    pub fn of(&self, instance: &str) -> BTreeSet<String> {
        self.0.get(instance).cloned().unwrap_or_default()
    }

    /// True if each of these pipelines has one instance, and there are no others.
    pub fn is_all(&self, all: &BTreeSet<String>) -> bool {
        let count: usize = self.0.values().map(BTreeSet::len).sum();
        let found: BTreeSet<_> = self.0.values().flatten().cloned().collect();
        count == found.len() && found == *all
    }

    /// The difference between the largest and the smallest share.
    pub fn spread(&self) -> usize {
        let sizes = self.0.values().map(BTreeSet::len);
        sizes.clone().max().unwrap_or_default() - sizes.min().unwrap_or_default()
    }

    pub fn sizes(&self) -> String {
        let sizes = self.0.iter().map(|(name, share)| format!("{name} has {}", share.len()));
        sizes.collect::<Vec<_>>().join(", ")
    }

    /// The numbers of the tenants whose instance is another one after a change.
    pub fn moved(&self, after: &Share, tenants: &[String]) -> BTreeSet<usize> {
        let owner = |share: &Share, name: &String| {
            let owner = share.0.iter().find(|(_, pipelines)| pipelines.contains(name));
            owner.map(|(instance, _)| instance.clone())
        };
        let is_elsewhere = |name: &String| match (owner(self, name), owner(after, name)) {
            (Some(before), Some(after)) => before != after,
            // It came or went.
            _ => false,
        };
        let moved = tenants.iter().enumerate().filter(|(_, name)| is_elsewhere(name));
        moved.map(|(number, _)| number).collect()
    }
}

/// What happened to the fleet, from then until its pipelines were shared again.
#[derive(Debug)]
pub struct Change {
    what: &'static str,
    at_ms: i64,
    /// When the pipelines were shared again.
    pub balanced_ms: i64,
    /// When facts were held up no longer.
    pub until_ms: i64,
    /// The tenants whose pipelines moved.
    pub moved: BTreeSet<usize>,
    /// Positions from which an instance that did not stop in order is repeated.
    positions: BTreeMap<usize, Lsn>,
    /// When that instance sent its last record, at the latest.
    repeats_until_ms: i64,
}

impl Change {
    /// Pipelines stop, and go on elsewhere.
    pub fn in_order(what: &'static str, at_ms: i64) -> Self {
        Change::unexpected(what, at_ms, BTreeMap::new())
    }

    /// An instance is gone without a word, of whose tenants these positions were confirmed.
    pub fn unexpected(what: &'static str, at_ms: i64, positions: BTreeMap<usize, Lsn>) -> Self {
        Change {
            what,
            at_ms,
            balanced_ms: at_ms,
            until_ms: at_ms,
            moved: BTreeSet::new(),
            positions,
            repeats_until_ms: at_ms,
        }
    }

    pub fn is_unexpected(&self) -> bool {
        !self.positions.is_empty()
    }

    /// The instance is back, and may have sent until now what it had read before.
    pub fn sent_until(&mut self, ms: i64) {
        self.repeats_until_ms = ms;
    }

    /// Facts that may come again.
    pub fn repeatable(&self, deliveries: &Deliveries) -> u64 {
        let beyond = deliveries.all.iter().filter(|one| {
            let position = self.positions.get(&one.tenant);
            position.is_some_and(|position| one.lsn > *position)
                && one.emitted_ms <= self.repeats_until_ms
        });
        beyond.count() as u64 + self.positions.len() as u64 * TRANSACTION
    }

    /// How long each pipeline that moved held up a fact, sorted.
    pub fn stalls(&self, deliveries: &Deliveries) -> Vec<Duration> {
        self.longest(self.moved.iter().copied(), deliveries)
    }

    /// The same of the pipelines that did not move.
    pub fn others(&self, deliveries: &Deliveries) -> Vec<Duration> {
        let all: BTreeSet<_> = deliveries.all.iter().map(|one| one.tenant).collect();
        self.longest(all.difference(&self.moved).copied(), deliveries)
    }

    /// The longest that a pipeline stood still after the session of its instance had timed out.
    pub fn takeover(&self, deliveries: &Deliveries, session: Duration) -> Duration {
        let again = |tenant: usize| {
            let next = deliveries.of(tenant, self.at_ms, i64::MAX).map(|one| one.arrived_ms).min();
            milliseconds(next.expect("it went on") - self.at_ms).saturating_sub(session)
        };
        self.positions.keys().map(|tenant| again(*tenant)).max().unwrap_or_default()
    }

    /// What was measured, in a line.
    pub fn note(&self, deliveries: &Deliveries, session: Duration) -> String {
        let (stalls, others) = (self.stalls(deliveries), self.others(deliveries));
        let ms = |time: Option<&Duration>| time.map_or(0, |time| time.as_millis());
        let mut note = format!(
            "{}: {} pipelines moved, shared again after {} ms; facts of these came after {} ms at most \
             (median {}), those of the others after {} ms at most",
            self.what,
            self.moved.len(),
            self.balanced_ms - self.at_ms,
            ms(stalls.last()),
            ms(stalls.get(stalls.len() / 2)),
            ms(others.last()),
        );
        if self.is_unexpected() {
            let takeover = self.takeover(deliveries, session).as_millis();
            note += &format!("; all went on {takeover} ms after the session had timed out");
        }
        note
    }

    /// The longest of each tenant, sorted.
    fn longest(
        &self,
        tenants: impl Iterator<Item = usize>,
        deliveries: &Deliveries,
    ) -> Vec<Duration> {
        let longest = tenants.filter_map(|tenant| {
            let held_up = deliveries.of(tenant, self.at_ms - BEFORE_MS, self.until_ms);
            held_up.map(|one| milliseconds(one.arrived_ms - one.emitted_ms)).max()
        });
        let mut longest: Vec<_> = longest.collect();
        longest.sort();
        longest
    }
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_millis().try_into().expect("milliseconds")
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(count.try_into().unwrap_or_default())
}
