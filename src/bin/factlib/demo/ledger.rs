//! What was emitted, held against what arrived: a plain struct.
//!
//! A fact is noted before it is emitted, because it may arrive before the commit
//! is answered. The facts of an aggregate are numbered from 1 without a gap; a
//! number that was rolled back is given again.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use factlib::{Error, ErrorKind, Result, emit::Fact, proto::OutboxEvent};
use hdrhistogram::Histogram;
use uuid::Uuid;

/// What takes longer than ten minutes counts as ten minutes.
const LONGEST_MICROS: u64 = 600_000_000;

/// One aggregate: its type and its id.
pub type Aggregate = (&'static str, u32);

/// A fact, as it is noted and as it is emitted.
#[derive(Clone, Debug)]
pub struct Noted {
    pub id: Uuid,
    pub aggregate: Aggregate,
    /// Which of its aggregate.
    pub number: u64,
    pub emitted: Instant,
}

/// A record, as the consumer got it.
pub struct Arrival<'a> {
    pub topic: &'a str,
    pub key: &'a [u8],
    pub event: &'a OutboxEvent,
}

/// All facts that are not settled, and what became of those that are.
#[derive(Default)]
pub struct Ledger {
    open: HashMap<Uuid, Open>,
    undone: HashSet<Uuid>,
    /// The highest number that arrived.
    last: HashMap<Aggregate, u64>,
    pub tally: Tally,
}

struct Open {
    noted: Noted,
    committed: bool,
    arrived: bool,
}

/// The counts.
pub struct Tally {
    pub committed: u64,
    pub rolled_back: u64,
    /// Committed and arrived.
    pub delivered: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived before one of its aggregate that was emitted earlier.
    pub out_of_order: u64,
    /// Rolled back, and arrived.
    pub ghosts: u64,
    /// Arrived other than emitted, or never emitted.
    pub altered: u64,
    /// From the emit to the consumer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
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

impl Noted {
    /// The fact to emit.
    pub fn fact(&self) -> Fact {
        let (kind, id) = self.aggregate;
        Fact::new(kind, id.to_string(), "changed").id(self.id).payload(self.payload())
    }

    fn payload(&self) -> String {
        let (kind, id) = self.aggregate;
        format!(r#"{{"{kind}":{id},"number":{}}}"#, self.number)
    }

    /// True if the record is this fact, whole and in its place.
    fn is(&self, Arrival { topic, key, event }: &Arrival<'_>) -> bool {
        let (kind, id) = self.aggregate;
        let id = id.to_string();
        topic.rsplit('.').next() == Some(kind)
            && *key == id.as_bytes()
            && (event.aggregate_type.as_str(), &event.aggregate_id) == (kind, &id)
            && event.payload == self.payload()
    }
}

impl Ledger {
    /// This is about to be emitted.
    pub fn note(&mut self, facts: &[Noted]) {
        self.open.extend(facts.iter().map(|noted| {
            (noted.id, Open { noted: noted.clone(), committed: false, arrived: false })
        }));
    }

    /// This was committed.
    pub fn committed(&mut self, facts: &[Noted]) {
        self.tally.committed += facts.len() as u64;
        for Noted { id, .. } in facts {
            match self.open.get_mut(id) {
                Some(open) if !open.arrived => open.committed = true,
                _ => {
                    self.open.remove(id);
                    self.tally.delivered += 1;
                }
            }
        }
    }

    /// This was rolled back.
    pub fn rolled_back(&mut self, facts: &[Noted]) {
        self.tally.rolled_back += facts.len() as u64;
        for Noted { id, .. } in facts {
            if self.open.remove(id).is_some_and(|open| open.arrived) {
                self.tally.ghosts += 1;
            }
            self.undone.insert(*id);
        }
    }

    /// A record has arrived; none if it could not be read.
    pub fn arrived(&mut self, record: Option<Arrival<'_>>, now: Instant) {
        let tally = &mut self.tally;
        let Some(record) = record else { return tally.altered += 1 };
        let Ok(id) = record.event.id.parse() else { return tally.altered += 1 };
        let Some(open) = self.open.get_mut(&id) else {
            // What arrived once is forgotten; what is known neither way was never noted.
            let known = self.last.keys().any(|(kind, _)| *kind == record.event.aggregate_type);
            return match (self.undone.contains(&id), known) {
                (true, _) => tally.ghosts += 1,
                (false, true) => tally.duplicates += 1,
                (false, false) => tally.altered += 1,
            };
        };
        if std::mem::replace(&mut open.arrived, true) {
            return tally.duplicates += 1;
        }
        tally.altered += u64::from(!open.noted.is(&record));
        let micros = now.saturating_duration_since(open.noted.emitted).as_micros();
        tally.latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        let last = self.last.entry(open.noted.aggregate).or_default();
        tally.out_of_order += u64::from(open.noted.number != *last + 1);
        *last = (*last).max(open.noted.number);
        if open.committed {
            self.open.remove(&id);
            tally.delivered += 1;
        }
    }

    /// Committed and not arrived: at the end, these are lost.
    pub fn on_the_way(&self) -> u64 {
        self.tally.committed - self.tally.delivered
    }

    /// How it went, at the end.
    ///
    /// # Errors
    /// A promise was broken.
    pub fn verdict(&self) -> Result<()> {
        let Tally { out_of_order, ghosts, altered, .. } = self.tally;
        let counts = [
            (self.on_the_way(), "lost"),
            (out_of_order, "out of order"),
            (ghosts, "delivered though rolled back"),
            (altered, "altered"),
        ];
        let broken = counts.iter().filter(|(count, _)| *count > 0);
        let broken: Vec<_> = broken.map(|(count, what)| format!("{count} {what}")).collect();
        if broken.is_empty() {
            return Ok(());
        }
        let what = format!("the relay broke a promise: facts {}", broken.join(", "));
        Err(Error::new(ErrorKind::ActorFailed, what)
            .remedy("this is a defect of factlib, please report it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(number: u64) -> Noted {
        Noted { id: Uuid::now_v7(), aggregate: ("user", 7), number, emitted: Instant::now() }
    }

    /// A ledger in which these facts were committed.
    fn committed(facts: &[Noted]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.note(facts);
        ledger.committed(facts);
        ledger
    }

    fn arrive(ledger: &mut Ledger, noted: &Noted) {
        let event = noted.fact().to_event().expect("a valid fact");
        let record = Arrival { topic: "shop.user", key: b"7", event: &event };
        ledger.arrived(Some(record), Instant::now());
    }

    fn broken(ledger: &Ledger) -> String {
        ledger.verdict().expect_err("a promise is broken").to_string()
    }

    #[test]
    fn what_arrives_in_order_is_fine_whether_before_or_after_the_commits_answer() {
        let facts = [noted(1), noted(2)];
        let mut ledger = Ledger::default();
        ledger.note(&facts);
        arrive(&mut ledger, &facts[0]);
        ledger.committed(&facts);
        assert_eq!(ledger.on_the_way(), 1);
        arrive(&mut ledger, &facts[1]);
        assert!(ledger.verdict().is_ok());
        assert_eq!((ledger.tally.delivered, ledger.tally.latency.len()), (2, 2));
    }

    #[test]
    fn what_does_not_arrive_is_lost() {
        let facts = [noted(1)];
        assert!(broken(&committed(&facts)).contains("1 lost"));
    }

    #[test]
    fn a_later_one_first_is_out_of_order() {
        let facts = [noted(1), noted(2)];
        let mut ledger = committed(&facts);
        arrive(&mut ledger, &facts[1]);
        arrive(&mut ledger, &facts[0]);
        assert!(broken(&ledger).contains("2 out of order"));
    }

    #[test]
    fn a_second_arrival_is_a_duplicate_and_breaks_nothing() {
        let facts = [noted(1)];
        let mut ledger = committed(&facts);
        arrive(&mut ledger, &facts[0]);
        arrive(&mut ledger, &facts[0]);
        assert_eq!(ledger.tally.duplicates, 1);
        assert!(ledger.verdict().is_ok());
    }

    #[test]
    fn what_was_rolled_back_must_not_arrive_before_or_after() {
        let facts = [noted(1), noted(1)];
        let mut ledger = Ledger::default();
        ledger.note(&facts);
        arrive(&mut ledger, &facts[0]);
        ledger.rolled_back(&facts);
        arrive(&mut ledger, &facts[1]);
        assert_eq!(ledger.tally.ghosts, 2);
        assert!(broken(&ledger).contains("2 delivered though rolled back"));
    }

    #[test]
    fn another_payload_is_altered() {
        let facts = [noted(1)];
        let mut ledger = committed(&facts);
        let other = Noted { number: 2, ..facts[0].clone() };
        arrive(&mut ledger, &other);
        ledger.arrived(None, Instant::now());
        assert!(broken(&ledger).contains("2 altered"));
    }
}
