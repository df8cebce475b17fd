//! Expects the records of rows, sees the records of topics, and finds the faults. Pure: no server, no
//! clock.

use std::collections::{BTreeMap, HashMap};

use super::{
    digest::Digest,
    fault::{Fault, FaultKind},
};

/// A record that a row is to become.
pub struct Wanted<'a> {
    pub event_id: &'a str,
    pub topic: &'a str,
    pub partition: i32,
    pub digest: Digest,
    /// Aggregate type and id.
    pub aggregate: (&'a str, &'a str),
}

/// A record of a topic.
pub struct Seen<'a> {
    pub event_id: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub digest: Digest,
    /// True for a record that was replayed or redriven: it may come late and again.
    pub is_resent: bool,
}

/// The records of all rows, by event id.
#[derive(Default)]
pub struct Comparison {
    topics: Vec<String>,
    aggregates: HashMap<(String, String), usize>,
    events: HashMap<Box<str>, Vec<Expected>>,
    records: u64,
    /// Of the partition that is read: the last event of each aggregate that came for the first time.
    latest: HashMap<usize, u64>,
    /// Records of events that no row has.
    strangers: BTreeMap<(usize, i32, i64), String>,
}

struct Expected {
    topic: usize,
    partition: i32,
    digest: Digest,
    aggregate: usize,
    /// Number of the row.
    row: u64,
    is_delivered: bool,
}

impl Comparison {
    /// Expects a record. Calls come in the order of rows.
    pub fn expect(&mut self, row: u64, wanted: &Wanted<'_>) {
        let topic = self.topic(wanted.topic);
        let (kind, id) = wanted.aggregate;
        let next = self.aggregates.len();
        let aggregate = *self.aggregates.entry((kind.into(), id.into())).or_insert(next);
        let Wanted { partition, digest, .. } = *wanted;
        let is_delivered = false;
        let expected = Expected { topic, partition, digest, aggregate, row, is_delivered };
        self.events.entry(wanted.event_id.into()).or_default().push(expected);
        self.records += 1;
    }

    /// Returns the index of a topic, which is expected to have records, or is looked into.
    pub fn topic(&mut self, name: &str) -> usize {
        self.topics.iter().position(|other| other == name).unwrap_or_else(|| {
            self.topics.push(name.to_owned());
            self.topics.len() - 1
        })
    }

    /// Returns the names of the topics.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Returns the number of expected records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns true if a row has this event.
    pub fn knows(&self, event_id: &str) -> bool {
        self.events.contains_key(event_id)
    }

    /// Begins a partition: order is kept within one.
    pub fn begin_partition(&mut self) {
        self.latest.clear();
    }

    /// Sees the next record of a partition of a topic, and returns what is wrong with it.
    pub fn see(&mut self, topic: usize, seen: &Seen<'_>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |kind: FaultKind, detail: String| {
            faults.push(Fault {
                kind,
                event_id: seen.event_id.to_owned(),
                topic: self.topics.get(topic).cloned().unwrap_or_default(),
                partition: Some(seen.partition),
                offset: Some(seen.offset),
                detail,
            });
        };
        let Some(records) = self.events.get_mut(seen.event_id) else {
            let place = (topic, seen.partition, seen.offset);
            self.strangers.insert(place, seen.event_id.to_owned());
            return faults;
        };
        let Some(expected) = records.iter_mut().find(|expected| expected.topic == topic) else {
            let wanted = records.iter().filter_map(|expected| self.topics.get(expected.topic));
            let wanted: Vec<_> = wanted.map(String::as_str).collect();
            fault(FaultKind::WrongTopic, format!("expected in {}", wanted.join(", ")));
            return faults;
        };
        if expected.is_delivered {
            if !seen.is_resent {
                fault(FaultKind::Repeated, String::new());
            }
        } else if !seen.is_resent {
            let latest = self.latest.entry(expected.aggregate).or_insert(expected.row);
            if expected.row < *latest {
                fault(FaultKind::OutOfOrder, "comes after a later event of its aggregate".into());
            }
            *latest = expected.row.max(*latest);
        }
        expected.is_delivered = true;
        if seen.partition != expected.partition {
            fault(FaultKind::WrongPartition, format!("expected in {}", expected.partition));
        }
        for (kind, differs) in [
            (FaultKind::ChangedKey, seen.digest.key != expected.digest.key),
            (FaultKind::ChangedValue, seen.digest.value != expected.digest.value),
            (FaultKind::ChangedHeaders, seen.digest.headers != expected.digest.headers),
        ] {
            if differs {
                fault(kind, String::new());
            }
        }
        faults
    }

    /// Returns the ids of events that no row of the selection has.
    pub fn strangers(&self) -> impl Iterator<Item = &str> {
        self.strangers.values().map(String::as_str)
    }

    /// Returns what is missing, in the order of rows, and the events for which `is_row` is false.
    pub fn finish(
        self,
        is_parked: impl Fn(&str) -> bool,
        is_row: impl Fn(&str) -> bool,
    ) -> (Vec<Fault>, u64) {
        let Comparison { topics, events, strangers, .. } = self;
        let topic = |at: usize| topics.get(at).cloned().unwrap_or_default();
        let (mut lost, mut parked) = (Vec::new(), 0);
        for (event_id, records) in events {
            for expected in records.iter().filter(|expected| !expected.is_delivered) {
                if is_parked(&event_id) {
                    parked += 1;
                } else {
                    lost.push((expected.row, topic(expected.topic), event_id.to_string()));
                }
            }
        }
        lost.sort();
        let lost = lost.into_iter().map(|(_, topic, event_id)| Fault {
            kind: FaultKind::Lost,
            event_id,
            topic,
            partition: None,
            offset: None,
            detail: String::new(),
        });
        let unknown = strangers.into_iter().filter(|(_, event_id)| !is_row(event_id));
        let unknown = unknown.map(|((at, partition, offset), event_id)| Fault {
            kind: FaultKind::Unknown,
            event_id,
            topic: topic(at),
            partition: Some(partition),
            offset: Some(offset),
            detail: "no row has this event".into(),
        });
        (lost.chain(unknown).collect(), parked)
    }
}
