//! Finds the record of each event among those that Debezium sent. Pure.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    ShadowReport,
    difference::{Difference, DifferenceKind, KnownDifference, SentRecord, differences},
};
use crate::record::Record;

/// Header with the event's id.
const ID_HEADER: &str = "id";

/// A record that factlib makes.
#[derive(Debug)]
pub(super) struct Expected {
    pub event_id: String,
    pub topic: String,
    pub record: Record,
    pub is_found: bool,
}

/// Expected records, and what was found in the topics.
pub(super) struct Matching {
    expected: Vec<Expected>,
    /// Indexes by topic and by the header with the id.
    by_id: HashMap<(String, Bytes), usize>,
    equal: u64,
    differences: Vec<Difference>,
    /// Offsets of the first and the last match of each partition.
    matched: HashMap<(String, i32), (i64, i64)>,
    /// Records of events that no row has.
    strangers: Vec<(String, i32, i64, String)>,
}

impl Matching {
    pub fn new(expected: Vec<Expected>) -> Self {
        let indexes = expected.iter().enumerate();
        let by_id = indexes.map(|(index, of)| ((of.topic.clone(), our_id(&of.record)), index));
        Matching {
            by_id: by_id.collect(),
            expected,
            equal: 0,
            differences: Vec::new(),
            matched: HashMap::new(),
            strangers: Vec::new(),
        }
    }

    /// The topics of the expected records.
    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<_> = self.expected.iter().map(|of| of.topic.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// True once each expected record was found.
    pub fn is_complete(&self) -> bool {
        self.expected.iter().all(|expected| expected.is_found)
    }

    /// Compares a record of a topic with the one that is expected there.
    pub fn see(&mut self, topic: &str, partitions: i32, theirs: SentRecord) {
        let partition = theirs.partition;
        let id = their_id(&theirs.headers);
        let found = self.by_id.get(&(topic.to_owned(), id.clone()));
        let Some(expected) = found.and_then(|index| self.expected.get_mut(*index)) else {
            let id = String::from_utf8_lossy(&id).into_owned();
            self.strangers.push((topic.to_owned(), partition, theirs.offset, id));
            return;
        };
        let offset = theirs.offset;
        let matched = self.matched.entry((topic.to_owned(), partition)).or_insert((offset, offset));
        matched.1 = matched.1.max(offset);
        let event_id = expected.event_id.clone();
        let difference = |(kind, known, detail)| Difference {
            kind,
            known,
            event_id: event_id.clone(),
            topic: topic.to_owned(),
            detail,
        };
        if std::mem::replace(&mut expected.is_found, true) {
            let known = Some(KnownDifference::RepeatedByDebezium);
            let detail = format!("again at {partition}:{offset}");
            self.differences.push(difference((DifferenceKind::Repeated, known, detail)));
            return;
        }
        let ours = &expected.record;
        let chosen = ours
            .partition
            .unwrap_or_else(|| factlib_kafka::partitioner::of_key(&ours.key, partitions));
        let found = differences(ours, chosen, &theirs);
        self.equal += u64::from(found.is_empty());
        self.differences.extend(found.into_iter().map(difference));
    }

    /// Looks for what is missing in a topic that factlib would not send it to.
    pub fn see_elsewhere(&mut self, topic: &str, sent: &SentRecord) {
        let id = their_id(&sent.headers);
        let missing = self.expected.iter_mut().filter(|expected| !expected.is_found);
        for expected in missing.filter(|expected| our_id(&expected.record) == id) {
            expected.is_found = true;
            self.differences.push(Difference {
                kind: DifferenceKind::Topic,
                known: None,
                event_id: expected.event_id.clone(),
                topic: expected.topic.clone(),
                detail: format!("Debezium sent it to {topic}"),
            });
        }
    }

    /// Adds to the report what was found, and what was not.
    pub fn finish(self, report: &mut ShadowReport) {
        report.equal = self.equal;
        report.differences.extend(self.differences);
        for missing in self.expected.into_iter().filter(|expected| !expected.is_found) {
            report.differences.push(Difference {
                kind: DifferenceKind::Missing,
                known: None,
                event_id: missing.event_id,
                topic: missing.topic,
                detail: "Debezium has not sent it".into(),
            });
        }
        for (topic, partition, offset, event_id) in self.strangers {
            // Others are of rows that were committed before or after those that were read.
            let place = (topic, partition);
            let matched = self.matched.get(&place);
            if matched.is_some_and(|(first, last)| (first..last).contains(&&offset)) {
                let detail = format!("no row has it; it is at {partition}:{offset}");
                let (kind, topic) = (DifferenceKind::Unexpected, place.0);
                report.differences.push(Difference { kind, known: None, event_id, topic, detail });
            }
        }
    }
}

fn our_id(record: &Record) -> Bytes {
    let header = record.headers.iter().find(|(name, _)| &**name == ID_HEADER);
    header.and_then(|(_, value)| value.clone()).unwrap_or_default()
}

fn their_id(headers: &[(String, Option<Bytes>)]) -> Bytes {
    let header = headers.iter().find(|(name, _)| name == ID_HEADER);
    header.and_then(|(_, value)| value.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(id: &'static str) -> Expected {
        let record = Record {
            key: "k".into(),
            value: Some("v".into()),
            headers: vec![("id".into(), Some(id.into()))],
            ..Record::default()
        };
        Expected { event_id: id.into(), topic: "t".into(), record, is_found: false }
    }

    fn sent(id: &'static str, offset: i64) -> SentRecord {
        SentRecord {
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some("k".into()),
            value: Some("v".into()),
            headers: vec![("id".into(), Some(id.into()))],
        }
    }

    #[test]
    fn each_event_is_found_or_named() {
        let mut matching = Matching::new(["a", "b", "c", "d"].map(expected).into());
        assert_eq!(matching.topics(), ["t"]);
        for (offset, id) in ["before", "a", "stranger", "a", "b", "behind"].into_iter().enumerate()
        {
            matching.see("t", 1, sent(id, offset as i64));
        }
        matching.see_elsewhere("other", &sent("c", 0));
        assert!(!matching.is_complete());
        let mut report = ShadowReport::default();
        matching.finish(&mut report);
        assert_eq!(report.equal, 2);
        let told = report.differences.iter().map(|difference| {
            format!("{} {}: {}", difference.kind.name(), difference.event_id, difference.detail)
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                "repeated a: again at 0:3",
                "topic c: Debezium sent it to other",
                "missing d: Debezium has not sent it",
                "unexpected stranger: no row has it; it is at 0:2",
            ]
        );
        assert!(!report.is_clean());
        report.differences.truncate(1);
        assert!(report.is_clean(), "Debezium repeats events");
    }
}
