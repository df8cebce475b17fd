//! Compares emitted facts with the records that arrive, and counts what went wrong.
//!
//! A fact is entered before it is emitted, because it may arrive before the commit returns. The
//! facts of an aggregate are numbered from 1 without gaps; a rolled-back number is used again.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use factlib::{Error, ErrorKind, Result, emit::Fact, proto::OutboxEvent};
use hdrhistogram::Histogram;
use uuid::Uuid;

/// Longest latency that is recorded, in microseconds; longer ones count as this.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// Type and id of an aggregate.
pub type Aggregate = (&'static str, u32);

/// A fact as it is entered and emitted.
#[derive(Clone, Debug)]
pub struct EmittedFact {
    pub id: Uuid,
    pub aggregate: Aggregate,
    /// Sequence number within its aggregate.
    pub number: u64,
    pub emitted: Instant,
}

/// A record as the consumer received it.
pub struct Arrival<'a> {
    pub topic: &'a str,
    pub key: &'a [u8],
    pub event: &'a OutboxEvent,
}

/// The record that arrived last, to be shown.
#[derive(Default)]
pub struct LastRecord {
    pub topic: String,
    pub key: String,
    pub event_type: String,
    pub payload: String,
}

/// Facts that are not settled yet, and counts of those that are.
#[derive(Default)]
pub struct Ledger {
    open: HashMap<Uuid, OpenFact>,
    rolled_back: HashSet<Uuid>,
    /// Highest number that arrived, per aggregate.
    last: HashMap<Aggregate, u64>,
    /// Latencies of facts that are emitted earlier are not counted.
    measured_from: Option<Instant>,
    pub last_record: Option<LastRecord>,
    pub tally: Tally,
}

struct OpenFact {
    fact: EmittedFact,
    committed: bool,
    arrived: bool,
}

/// Counts of the demo.
pub struct Tally {
    pub committed: u64,
    pub rolled_back: u64,
    /// Facts that committed and arrived.
    pub delivered: u64,
    /// Records of facts that had already arrived.
    pub duplicates: u64,
    /// Facts whose number does not follow the last one of their aggregate.
    pub out_of_order: u64,
    /// Facts that arrived though rolled back.
    pub ghosts: u64,
    /// Records that differ from the emitted fact, or that nobody emitted.
    pub altered: u64,
    /// Latency from emit to consumer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3)
            .expect("bounds and precision are legal");
        Tally {
            committed: 0,
            rolled_back: 0,
            delivered: 0,
            duplicates: 0,
            out_of_order: 0,
            ghosts: 0,
            altered: 0,
            latency,
        }
    }
}

impl EmittedFact {
    /// The fact to emit.
    pub fn fact(&self) -> Fact {
        let (kind, id) = self.aggregate;
        Fact::new(kind, id.to_string(), format!("{kind}.changed"))
            .id(self.id)
            .payload(self.payload())
    }

    fn payload(&self) -> String {
        let (kind, id) = self.aggregate;
        format!(r#"{{"{kind}":{id},"number":{}}}"#, self.number)
    }

    /// True if the record holds this fact, unaltered and in the right topic.
    fn matches(&self, Arrival { topic, key, event }: &Arrival<'_>) -> bool {
        let (kind, id) = self.aggregate;
        let id = id.to_string();
        topic.rsplit('.').next() == Some(kind)
            && *key == id.as_bytes()
            && (event.aggregate_type.as_str(), &event.aggregate_id) == (kind, &id)
            && event.payload == self.payload()
    }
}

impl LastRecord {
    fn note(&mut self, Arrival { topic, key, event }: &Arrival<'_>) {
        let set = |field: &mut String, text: &str| {
            field.clear();
            field.push_str(text);
        };
        set(&mut self.topic, topic);
        set(&mut self.key, &String::from_utf8_lossy(key));
        set(&mut self.event_type, &event.event_type);
        set(&mut self.payload, &String::from_utf8_lossy(&event.payload));
    }
}

impl Ledger {
    /// Counts the latencies of facts that are emitted from then on.
    pub fn measure_from(&mut self, moment: Instant) {
        self.measured_from = Some(moment);
    }

    /// Enters facts that are about to be emitted.
    pub fn enter(&mut self, facts: &[EmittedFact]) {
        self.open.extend(facts.iter().map(|fact| {
            (fact.id, OpenFact { fact: fact.clone(), committed: false, arrived: false })
        }));
    }

    /// Marks facts as committed.
    pub fn committed(&mut self, facts: &[EmittedFact]) {
        self.tally.committed += facts.len() as u64;
        for EmittedFact { id, .. } in facts {
            match self.open.get_mut(id) {
                Some(open) if !open.arrived => open.committed = true,
                _ => {
                    self.open.remove(id);
                    self.tally.delivered += 1;
                }
            }
        }
    }

    /// Marks facts as rolled back.
    pub fn rolled_back(&mut self, facts: &[EmittedFact]) {
        self.tally.rolled_back += facts.len() as u64;
        for EmittedFact { id, .. } in facts {
            if self.open.remove(id).is_some_and(|open| open.arrived) {
                self.tally.ghosts += 1;
            }
            self.rolled_back.insert(*id);
        }
    }

    /// Counts an arrived record; `None` if it could not be decoded.
    pub fn arrived(&mut self, record: Option<Arrival<'_>>, now: Instant) {
        let tally = &mut self.tally;
        let Some(record) = record else { return tally.altered += 1 };
        self.last_record.get_or_insert_default().note(&record);
        let Ok(id) = record.event.id.parse() else { return tally.altered += 1 };
        let Some(open) = self.open.get_mut(&id) else {
            // A settled fact is removed, so this is a duplicate unless the type is unknown.
            let known = self.last.keys().any(|(kind, _)| *kind == record.event.aggregate_type);
            return match (self.rolled_back.contains(&id), known) {
                (true, _) => tally.ghosts += 1,
                (false, true) => tally.duplicates += 1,
                (false, false) => tally.altered += 1,
            };
        };
        if std::mem::replace(&mut open.arrived, true) {
            return tally.duplicates += 1;
        }
        tally.altered += u64::from(!open.fact.matches(&record));
        if self.measured_from.is_none_or(|from| open.fact.emitted >= from) {
            let micros = now.saturating_duration_since(open.fact.emitted).as_micros();
            tally.latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        }
        let last = self.last.entry(open.fact.aggregate).or_default();
        tally.out_of_order += u64::from(open.fact.number != *last + 1);
        *last = (*last).max(open.fact.number);
        if open.committed {
            self.open.remove(&id);
            tally.delivered += 1;
        }
    }

    /// Number of facts that committed and did not arrive yet; at the end, these are lost.
    pub fn outstanding(&self) -> u64 {
        self.tally.committed - self.tally.delivered
    }

    /// The final verdict.
    ///
    /// # Errors
    /// Names each promise that was broken.
    pub fn verdict(&self) -> Result<()> {
        let Tally { out_of_order, ghosts, altered, .. } = self.tally;
        let counts = [
            (self.outstanding(), "lost"),
            (out_of_order, "out of order"),
            (ghosts, "delivered though rolled back"),
            (altered, "altered"),
        ];
        let broken = counts.iter().filter(|(count, _)| *count > 0);
        let broken: Vec<_> = broken.map(|(count, defect)| format!("{count} {defect}")).collect();
        if broken.is_empty() {
            return Ok(());
        }
        let failure = format!("the relay broke a promise: facts {}", broken.join(", "));
        Err(Error::new(ErrorKind::ActorFailed, failure)
            .remedy("this is a defect of factlib, please report it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(number: u64) -> EmittedFact {
        EmittedFact { id: Uuid::now_v7(), aggregate: ("user", 7), number, emitted: Instant::now() }
    }

    /// A ledger in which these facts are committed.
    fn committed(facts: &[EmittedFact]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.enter(facts);
        ledger.committed(facts);
        ledger
    }

    fn arrive(ledger: &mut Ledger, fact: &EmittedFact) {
        let event = fact.fact().to_event().expect("a valid fact");
        let record = Arrival { topic: "shop.user", key: b"7", event: &event };
        ledger.arrived(Some(record), Instant::now());
    }

    fn broken(ledger: &Ledger) -> String {
        ledger.verdict().expect_err("a promise is broken").to_string()
    }

    #[test]
    fn facts_may_arrive_before_or_after_the_commit_returns() {
        let facts = [emitted(1), emitted(2)];
        let mut ledger = Ledger::default();
        ledger.enter(&facts);
        arrive(&mut ledger, &facts[0]);
        ledger.committed(&facts);
        assert_eq!(ledger.outstanding(), 1);
        arrive(&mut ledger, &facts[1]);
        assert!(ledger.verdict().is_ok());
        assert_eq!((ledger.tally.delivered, ledger.tally.latency.len()), (2, 2));
    }

    #[test]
    fn latencies_of_the_start_are_not_counted() {
        let facts = [emitted(1), emitted(2)];
        let mut ledger = committed(&facts);
        ledger.measure_from(facts[1].emitted);
        arrive(&mut ledger, &facts[0]);
        assert_eq!((ledger.tally.delivered, ledger.tally.latency.len()), (1, 0));
        arrive(&mut ledger, &facts[1]);
        assert_eq!((ledger.tally.delivered, ledger.tally.latency.len()), (2, 1));
    }

    #[test]
    fn a_fact_that_does_not_arrive_is_lost() {
        let facts = [emitted(1)];
        assert!(broken(&committed(&facts)).contains("1 lost"));
    }

    #[test]
    fn a_later_fact_that_arrives_first_is_out_of_order() {
        let facts = [emitted(1), emitted(2)];
        let mut ledger = committed(&facts);
        arrive(&mut ledger, &facts[1]);
        arrive(&mut ledger, &facts[0]);
        assert!(broken(&ledger).contains("2 out of order"));
    }

    #[test]
    fn a_second_arrival_is_a_duplicate_and_breaks_nothing() {
        let facts = [emitted(1)];
        let mut ledger = committed(&facts);
        arrive(&mut ledger, &facts[0]);
        arrive(&mut ledger, &facts[0]);
        assert_eq!(ledger.tally.duplicates, 1);
        assert!(ledger.verdict().is_ok());
    }

    #[test]
    fn a_rolled_back_fact_must_never_arrive() {
        let facts = [emitted(1), emitted(1)];
        let mut ledger = Ledger::default();
        ledger.enter(&facts);
        arrive(&mut ledger, &facts[0]);
        ledger.rolled_back(&facts);
        arrive(&mut ledger, &facts[1]);
        assert_eq!(ledger.tally.ghosts, 2);
        assert!(broken(&ledger).contains("2 delivered though rolled back"));
    }

    #[test]
    fn another_payload_is_altered() {
        let facts = [emitted(1)];
        let mut ledger = committed(&facts);
        let other = EmittedFact { number: 2, ..facts[0].clone() };
        arrive(&mut ledger, &other);
        ledger.arrived(None, Instant::now());
        assert!(broken(&ledger).contains("2 altered"));
    }
}
