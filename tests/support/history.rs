//! The history checker: what was emitted against what was delivered.
//!
//! A [`History`] knows every fact of a run: which were committed, in which order
//! for their aggregate, before which position of the WAL, and which were rolled
//! back. A [`Checker`] takes the records that came back, one after the other,
//! each partition in its order, and reports. Both keep some hundred bytes a
//! fact, whatever its size, so that a run of a million can be checked.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use bytes::Bytes;
use factlib::{Lsn, proto::OutboxEvent, testing::ConsumedRecord};
use prost::Message;
use uuid::Uuid;

/// All facts of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    facts: Vec<Committed>,
    by_id: HashMap<Uuid, usize>,
    rolled_back: HashSet<Uuid>,
    aggregates: Vec<Aggregate>,
    by_aggregate: HashMap<(String, String), usize>,
    /// Facts before this one have their position.
    placed: usize,
}

#[derive(Clone, Debug)]
struct Aggregate {
    kind: String,
    id: String,
    facts: u64,
}

#[derive(Clone, Debug)]
struct Committed {
    id: Uuid,
    /// Its place in `aggregates`.
    aggregate: usize,
    /// Its place among the facts of its aggregate, from 0.
    sequence: u64,
    value_hash: u64,
    headers_hash: u64,
    /// Its commit ended at or before this position; none where that is not known.
    committed_before: Option<Lsn>,
}

impl History {
    /// A fact whose transaction was committed, after all those before it of its aggregate.
    pub fn committed(&mut self, event: &OutboxEvent) {
        let id = id(event);
        let name = (event.aggregate_type.clone(), event.aggregate_id.clone());
        let aggregate = *self.by_aggregate.entry(name).or_insert_with(|| {
            let (kind, id) = (event.aggregate_type.clone(), event.aggregate_id.clone());
            self.aggregates.push(Aggregate { kind, id, facts: 0 });
            self.aggregates.len() - 1
        });
        let sequence = self.aggregates[aggregate].facts;
        self.aggregates[aggregate].facts += 1;
        let former = self.by_id.insert(id, self.facts.len());
        assert!(former.is_none(), "the run emitted {id} twice");
        self.facts.push(Committed {
            id,
            aggregate,
            sequence,
            value_hash: hash(event.encode_to_vec().as_slice()),
            headers_hash: hash(&expected_headers(event)),
            committed_before: None,
        });
    }

    /// The WAL ended at `lsn` some time after all facts so far were committed.
    pub fn committed_before(&mut self, lsn: Lsn) {
        for fact in &mut self.facts[self.placed..] {
            fact.committed_before = Some(lsn);
        }
        self.placed = self.facts.len();
    }

    /// A fact whose transaction was rolled back.
    pub fn rolled_back(&mut self, event: &OutboxEvent) {
        self.rolled_back.insert(id(event));
    }

    /// Takes over the facts of another emitter; it must have had other aggregates.
    pub fn merge(&mut self, other: History) {
        let (facts, aggregates) = (self.facts.len(), self.aggregates.len());
        for (name, index) in other.by_aggregate {
            let former = self.by_aggregate.insert(name, aggregates + index);
            assert!(former.is_none(), "two emitters had one aggregate");
        }
        self.aggregates.extend(other.aggregates);
        for (index, mut fact) in other.facts.into_iter().enumerate() {
            fact.aggregate += aggregates;
            let former = self.by_id.insert(fact.id, facts + index);
            assert!(former.is_none(), "two emitters emitted {}", fact.id);
            self.facts.push(fact);
        }
        self.rolled_back.extend(other.rolled_back);
        self.placed = self.facts.len();
    }

    /// Forgets the commits that a failover has lost: only these facts are in the surviving history, and
    /// the others count as rolled back. Returns how many were lost.
    pub fn keep(&mut self, surviving: &HashSet<Uuid>) -> usize {
        let (facts, aggregates) = (std::mem::take(&mut self.facts), &mut self.aggregates);
        let before = facts.len();
        aggregates.iter_mut().for_each(|aggregate| aggregate.facts = 0);
        self.by_id.clear();
        for fact in facts {
            if !surviving.contains(&fact.id) {
                self.rolled_back.insert(fact.id);
                continue;
            }
            let next = &mut aggregates[fact.aggregate].facts;
            self.by_id.insert(fact.id, self.facts.len());
            self.facts.push(Committed { sequence: *next, ..fact });
            *next += 1;
        }
        self.placed = self.facts.len();
        before - self.facts.len()
    }

    /// Returns true for a fact of this run, committed or rolled back.
    pub fn has(&self, id: &Uuid) -> bool {
        self.by_id.contains_key(id) || self.rolled_back.contains(id)
    }

    /// How many facts were committed.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// How many were rolled back.
    pub fn rolled_back_len(&self) -> usize {
        self.rolled_back.len()
    }

    /// The aggregate types, sorted.
    pub fn aggregate_types(&self) -> Vec<String> {
        let types: HashSet<_> = self.aggregates.iter().map(|a| a.kind.clone()).collect();
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort();
        types
    }
}

/// Holds records against a history; feed it each partition in its order.
pub struct Checker<'a> {
    history: &'a History,
    topic_prefix: String,
    /// Partitions of every topic; with it, each record's partition is checked.
    partitions: Option<i32>,
    /// Records have no headers, and are told by their values.
    plain: bool,
    confirmed: Option<Lsn>,
    /// How often each fact came, in the order of the history.
    seen: Vec<u32>,
    /// The next first delivery that each aggregate should have.
    next: Vec<u64>,
    report: Report,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub emitted: usize,
    /// Facts that came at least once.
    pub delivered: usize,
    /// Committed, and never came.
    pub lost: usize,
    /// Came, and were rolled back or never emitted.
    pub phantom: usize,
    /// Came more than once, with the same event id: further times.
    pub duplicates: u64,
    /// First deliveries that came before an earlier fact of their aggregate did.
    pub order_violations: u64,
    /// Wrong topic, partition, key, headers or bytes.
    pub altered: u64,
    /// Committed before the confirmed position, and had not come: PostgreSQL may forget them.
    pub confirmed_too_far: usize,
    /// One of each kind, for people.
    pub examples: Vec<String>,
}

impl Report {
    /// True when every promise was kept; duplicates are judged by the scenario.
    pub fn is_clean(&self) -> bool {
        let Report { lost, phantom, order_violations, altered, confirmed_too_far, .. } = self;
        (*lost, *phantom, *order_violations, *altered, *confirmed_too_far) == (0, 0, 0, 0, 0)
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Report) {
        self.emitted += other.emitted;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.duplicates += other.duplicates;
        self.order_violations += other.order_violations;
        self.altered += other.altered;
        self.confirmed_too_far += other.confirmed_too_far;
        self.examples.extend(other.examples.iter().cloned());
    }

    fn example(&mut self, first: bool, text: impl FnOnce() -> String) {
        if first {
            self.examples.push(text());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "emitted {}, delivered {}, lost {}, phantom {}, duplicates {}, order violations {}, altered {}",
            self.emitted,
            self.delivered,
            self.lost,
            self.phantom,
            self.duplicates,
            self.order_violations,
            self.altered
        )?;
        if self.confirmed_too_far > 0 {
            write!(f, ", confirmed and not delivered {}", self.confirmed_too_far)?;
        }
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

impl<'a> Checker<'a> {
    pub fn new(history: &'a History, topic_prefix: &str, partitions: Option<i32>) -> Self {
        Checker {
            history,
            topic_prefix: topic_prefix.to_owned(),
            partitions,
            plain: false,
            confirmed: None,
            seen: vec![0; history.facts.len()],
            next: vec![0; history.aggregates.len()],
            report: Report::default(),
        }
    }

    /// Records have to be without headers.
    pub fn plain(&mut self) {
        self.plain = true;
    }

    /// PostgreSQL had been told, before the records were read, that it may forget
    /// everything up to here.
    pub fn confirmed(&mut self, lsn: Lsn) {
        self.confirmed = Some(lsn);
    }

    /// The next record of its partition.
    pub fn record(&mut self, record: &ConsumedRecord) {
        let text = match (self.plain, record.header("event_id")) {
            (true, _) => id_in_value(record),
            (false, id) => id.map(|id| String::from_utf8_lossy(id).into_owned()),
        };
        let text = text.unwrap_or_default();
        let id = Uuid::parse_str(&text).ok();
        let place = || format!("{}/{}@{}", record.topic, record.partition, record.offset);
        let known = id.and_then(|id| self.history.by_id.get(&id));
        let Some(&index) = known else {
            self.report.phantom += 1;
            let rolled_back = id.is_some_and(|id| self.history.rolled_back.contains(&id));
            let what = if rolled_back { "was rolled back" } else { "was never emitted" };
            let first = self.report.phantom == 1;
            return self
                .report
                .example(first, || format!("phantom: {text:?} at {} {what}", place()));
        };
        let fact = &self.history.facts[index];
        let aggregate = &self.history.aggregates[fact.aggregate];
        if let Some(wrong) = self.wrong(record, fact, aggregate) {
            self.report.altered += 1;
            let first = self.report.altered == 1;
            self.report.example(first, || format!("altered: {wrong} of {text} at {}", place()));
        }
        self.seen[index] += 1;
        if self.seen[index] > 1 {
            self.report.duplicates += 1;
            return;
        }
        let next = self.next[fact.aggregate];
        if fact.sequence > next {
            self.report.order_violations += 1;
            let first = self.report.order_violations == 1;
            self.report.example(first, || {
                let (Aggregate { kind, id, .. }, got) = (aggregate, fact.sequence);
                format!("order: {kind} {id:?}: {got} came before {next}, at {}", place())
            });
        }
        self.next[fact.aggregate] = next.max(fact.sequence + 1);
    }

    /// All records are in.
    pub fn report(mut self) -> Report {
        self.report.emitted = self.history.len();
        let missing = self.history.facts.iter().zip(&self.seen).filter(|(_, seen)| **seen == 0);
        for (fact, _) in missing {
            let Aggregate { kind, id, .. } = &self.history.aggregates[fact.aggregate];
            let name = format!("{}, fact {} of {kind} {id:?}", fact.id, fact.sequence);
            self.report.lost += 1;
            let first = self.report.lost == 1;
            self.report.example(first, || format!("lost: {name}"));
            let forgotten = fact.committed_before.zip(self.confirmed);
            if let Some((before, confirmed)) = forgotten.filter(|(before, c)| before <= c) {
                self.report.confirmed_too_far += 1;
                let first = self.report.confirmed_too_far == 1;
                self.report.example(first, || {
                    format!("confirmed up to {confirmed}: {name}, committed before {before}")
                });
            }
        }
        self.report.delivered = self.report.emitted - self.report.lost;
        self.report
    }

    fn wrong(
        &self,
        record: &ConsumedRecord,
        fact: &Committed,
        aggregate: &Aggregate,
    ) -> Option<&'static str> {
        let Aggregate { kind, id, .. } = aggregate;
        if record.topic != format!("{}.{kind}", self.topic_prefix) {
            return Some("topic");
        }
        if record.key.as_deref() != Some(id.as_bytes()) {
            return Some("key");
        }
        if self.partitions.is_some_and(|count| record.partition != java_partition(id, count)) {
            return Some("partition");
        }
        if hash(record.value.as_deref().unwrap_or_default()) != fact.value_hash {
            return Some("value");
        }
        if self.plain {
            return (!record.headers.is_empty()).then_some("headers");
        }
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        // Where it stood in the WAL is known only roughly.
        let lsn = headers.iter().position(|(key, _)| key == "LSN").map(|at| headers.remove(at));
        let lsn = lsn.and_then(|(_, lsn)| lsn.parse::<Lsn>().ok());
        if lsn.is_none_or(|lsn| fact.committed_before.is_some_and(|before| lsn >= before)) {
            return Some("LSN header");
        }
        (hash(&headers) != fact.headers_hash).then_some("headers")
    }
}

fn id_in_value(record: &ConsumedRecord) -> Option<String> {
    Some(OutboxEvent::decode(record.value.clone()?).ok()?.id)
}

fn id(event: &OutboxEvent) -> Uuid {
    event.id.parse().expect("a UUID, as every emitter of these tests makes")
}

/// What the Go worker sends, but for the LSN.
fn expected_headers(event: &OutboxEvent) -> Vec<(String, String)> {
    let mut headers =
        vec![("event_id", event.id.as_str()), ("event_type", event.event_type.as_str())];
    if let Some(trace) = &event.trace_info {
        headers.push(("trace_id", &trace.trace_id));
        headers.push(("span_id", &trace.span_id));
        headers.extend(trace.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
    headers.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The partition that Java's default partitioner chooses for a key: murmur2, after
/// `org.apache.kafka.common.utils.Utils.murmur2`, without its sign, modulo the count.
pub fn java_partition(key: &str, partitions: i32) -> i32 {
    const M: i32 = 0x5bd1_e995;
    let data = key.as_bytes();
    let mut h: i32 = 0x9747_b28c_u32 as i32 ^ data.len() as i32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = i32::from_le_bytes(chunk.try_into().expect("a chunk has 4 bytes"));
        k = k.wrapping_mul(M);
        k ^= ((k as u32) >> 24) as i32;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    for (n, byte) in rest.iter().enumerate().rev() {
        h ^= i32::from(*byte) << (8 * n);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= ((h as u32) >> 13) as i32;
    h = h.wrapping_mul(M);
    h ^= ((h as u32) >> 15) as i32;
    (h & 0x7fff_ffff) % partitions
}
