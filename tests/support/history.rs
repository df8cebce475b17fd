//! The history checker: what was emitted against what was delivered.
//!
//! A [`History`] knows every fact of a run: which were committed, in which order
//! for their aggregate, and which were rolled back. A [`Checker`] takes the
//! records that came back, partition by partition in their order, and reports.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use bytes::Bytes;
use factlib::{Lsn, proto::OutboxEvent, testing::ConsumedRecord};
use prost::Message;

/// All facts of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    committed: HashMap<String, Committed>,
    rolled_back: HashSet<String>,
    /// How many each aggregate has.
    aggregates: HashMap<(String, String), u64>,
}

#[derive(Clone, Debug)]
struct Committed {
    aggregate: (String, String),
    /// Its place among the facts of its aggregate, from 0.
    sequence: u64,
    bytes_hash: u64,
    metadata: Vec<(String, String)>,
}

impl History {
    /// A fact whose transaction was committed, after all those before it of its aggregate.
    pub fn committed(&mut self, event: &OutboxEvent) {
        let aggregate = (event.aggregate_type.clone(), event.aggregate_id.clone());
        let count = self.aggregates.entry(aggregate.clone()).or_default();
        let sequence = *count;
        *count += 1;
        let committed = Committed {
            aggregate,
            sequence,
            bytes_hash: hash(&event.encode_to_vec()),
            metadata: expected_headers(event),
        };
        let former = self.committed.insert(event.id.clone(), committed);
        assert!(former.is_none(), "the run emitted {} twice", event.id);
    }

    /// A fact whose transaction was rolled back.
    pub fn rolled_back(&mut self, event: &OutboxEvent) {
        self.rolled_back.insert(event.id.clone());
    }

    /// Takes over the facts of another emitter; it must have had other aggregates.
    pub fn merge(&mut self, other: History) {
        for aggregate in other.aggregates.keys() {
            assert!(!self.aggregates.contains_key(aggregate), "two emitters for {aggregate:?}");
        }
        self.committed.extend(other.committed);
        self.rolled_back.extend(other.rolled_back);
        self.aggregates.extend(other.aggregates);
    }

    /// How many facts were committed.
    pub fn len(&self) -> usize {
        self.committed.len()
    }

    /// How many were rolled back.
    pub fn rolled_back_len(&self) -> usize {
        self.rolled_back.len()
    }

    /// The aggregate types, sorted.
    pub fn aggregate_types(&self) -> Vec<String> {
        let types: HashSet<_> = self.aggregates.keys().map(|(kind, _)| kind.clone()).collect();
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
    seen: HashMap<&'a str, u64>,
    /// The next first delivery that each aggregate should have.
    next: HashMap<&'a (String, String), u64>,
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
    /// Came more than once: further times.
    pub duplicates: u64,
    /// First deliveries that came before an earlier fact of their aggregate did.
    pub order_violations: u64,
    /// Wrong topic, partition, key, headers or bytes.
    pub altered: u64,
    /// The confirmed position was beyond what was delivered.
    pub confirmed_too_far: bool,
    /// One of each kind, for people.
    pub examples: Vec<String>,
}

impl Report {
    /// True when every promise was kept; duplicates are judged by the scenario.
    pub fn is_clean(&self) -> bool {
        let Report { lost, phantom, order_violations, altered, confirmed_too_far, .. } = self;
        (*lost, *phantom, *order_violations, *altered, *confirmed_too_far) == (0, 0, 0, 0, false)
    }

    /// Holds the slot's confirmed position against the last delivered event's.
    ///
    /// Only when something is missing can it be too far: then nothing after the
    /// first missing fact may be confirmed, and that is what `first_missing` is.
    pub fn confirmed(&mut self, confirmed: Lsn, first_missing: Option<Lsn>) {
        self.confirmed_too_far = first_missing.is_some_and(|missing| confirmed >= missing);
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
        if self.confirmed_too_far {
            write!(f, ", confirmed too far")?;
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
            seen: HashMap::new(),
            next: HashMap::new(),
            report: Report::default(),
        }
    }

    /// The next record of its partition.
    pub fn record(&mut self, record: &ConsumedRecord) {
        let id = record.header("event_id").map(|id| String::from_utf8_lossy(id).into_owned());
        let id = id.unwrap_or_default();
        let place = || format!("{}/{}@{}", record.topic, record.partition, record.offset);
        let Some((id, fact)) = self.history.committed.get_key_value(id.as_str()) else {
            self.report.phantom += 1;
            let rolled_back = self.history.rolled_back.contains(&id);
            let what = if rolled_back { "was rolled back" } else { "was never emitted" };
            let first = self.report.phantom == 1;
            return self.report.example(first, || format!("phantom: {id} at {} {what}", place()));
        };
        if let Some(wrong) = self.wrong(record, fact) {
            self.report.altered += 1;
            let first = self.report.altered == 1;
            self.report.example(first, || format!("altered: {wrong} of {id} at {}", place()));
        }
        let times = self.seen.entry(id).or_default();
        *times += 1;
        if *times > 1 {
            self.report.duplicates += 1;
            return;
        }
        let next = self.next.entry(&fact.aggregate).or_default();
        if fact.sequence != *next && fact.sequence > *next {
            self.report.order_violations += 1;
            let (expected, first) = (*next, self.report.order_violations == 1);
            self.report.example(first, || {
                let (kind, aggregate) = &fact.aggregate;
                let got = fact.sequence;
                format!("order: {kind} {aggregate}: {got} came before {expected}, at {}", place())
            });
        }
        *next = (*next).max(fact.sequence + 1);
    }

    /// All records are in.
    pub fn report(mut self) -> Report {
        self.report.emitted = self.history.len();
        self.report.delivered = self.seen.len();
        self.report.lost = self.history.len() - self.seen.len();
        let missing =
            self.history.committed.iter().find(|(id, _)| !self.seen.contains_key(id.as_str()));
        if let Some((id, fact)) = missing {
            let (kind, aggregate) = &fact.aggregate;
            let sequence = fact.sequence;
            let text = format!("lost: {id}, fact {sequence} of {kind} {aggregate}");
            self.report.examples.push(text);
        }
        self.report
    }

    fn wrong(&self, record: &ConsumedRecord, fact: &Committed) -> Option<&'static str> {
        let (kind, aggregate) = &fact.aggregate;
        if record.topic != format!("{}.{kind}", self.topic_prefix) {
            return Some("topic");
        }
        if record.key.as_deref() != Some(aggregate.as_bytes()) {
            return Some("key");
        }
        if self.partitions.is_some_and(|count| record.partition != java_partition(aggregate, count))
        {
            return Some("partition");
        }
        if hash(record.value.as_deref().unwrap_or_default()) != fact.bytes_hash {
            return Some("value");
        }
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        // Where it stood in the WAL is not the emitter's to know.
        let lsn = headers.iter().position(|(key, _)| key == "LSN").map(|at| headers.remove(at));
        if lsn.is_none_or(|(_, lsn)| lsn.parse::<Lsn>().is_err()) {
            return Some("LSN header");
        }
        (headers != fact.metadata).then_some("headers")
    }
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

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
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
