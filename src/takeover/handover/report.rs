//! What a takeover finds and does.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::{BuildHasher, RandomState},
};

use serde::Serialize;

use crate::{Event, Lsn};

/// What was found, and done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HandoverReport {
    /// The slot.
    pub slot: String,
    /// Its confirmed position.
    pub confirmed: Lsn,
    /// Position from which on events were looked up: the confirmed one, or that of an earlier takeover.
    pub from: Lsn,
    /// End of the WAL, up to which events were looked up.
    pub wal_end: Lsn,
    /// Events that wait in the slot.
    pub waiting: u64,
    /// Records of theirs that the topics have.
    pub delivered: u64,
    /// Those of each topic.
    pub topics: BTreeMap<String, u64>,
    /// Records that the topics lack although later ones are there: they are sent when taking over.
    pub missing: u64,
    /// Rows between them that are no events, and are parked as dead letters when taking over.
    pub parked: u64,
    /// Records that come before an earlier one of their aggregate, which is missing: their order is lost.
    pub overtaking: u64,
    /// Position at which `factlib run` begins.
    pub position: Lsn,
    /// True once that is saved.
    pub is_taken: bool,
}

impl fmt::Display for HandoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HandoverReport { slot, confirmed, from, wal_end, waiting, delivered, missing, .. } =
            self;
        writeln!(f, "slot {slot}: confirmed {confirmed}, WAL ends at {wal_end}")?;
        if from > confirmed {
            writeln!(f, "taken over before, up to {from}")?;
        }
        writeln!(f, "events that wait: {waiting}")?;
        writeln!(f, "records of them in the topics: {delivered}")?;
        for (topic, count) in &self.topics {
            writeln!(f, "  {topic}: {count}")?;
        }
        let sent = if self.is_taken { "sent" } else { "to be sent" };
        writeln!(f, "missing between them, {sent} first: {missing}")?;
        if self.parked > 0 {
            writeln!(
                f,
                "rows between them that are no events, {sent} as dead letters: {}",
                self.parked
            )?;
        }
        if self.overtaking > 0 {
            writeln!(
                f,
                "behind a missing one of their aggregate: {}, whose order is lost",
                self.overtaking
            )?;
        }
        let position = self.position;
        match self.is_taken {
            true => writeln!(f, "taken over: `factlib run` begins at {position}"),
            false => {
                writeln!(f, "nothing is changed; --take has `factlib run` begin at {position}")
            }
        }
    }
}

/// Progress of a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandoverProgress {
    /// Events read from the slot.
    Waiting(u64),
    /// Records read from the topics.
    Records(u64),
    /// Records that are missing, so far.
    Missing(u64),
}

/// Counts what is missing, and what comes before it.
#[derive(Default)]
pub(super) struct Gaps {
    /// Hashes of the aggregates with a missing event.
    aggregates: HashSet<u64>,
    hasher: RandomState,
}

impl Gaps {
    pub fn missing(&mut self, event: &Event, report: &mut HandoverReport) {
        report.missing += 1;
        self.aggregates.insert(self.hash(event));
    }

    pub fn delivered(&mut self, event: &Event, report: &mut HandoverReport) {
        report.overtaking += u64::from(self.aggregates.contains(&self.hash(event)));
    }

    fn hash(&self, event: &Event) -> u64 {
        self.hasher.hash_one((event.aggregate_type(), event.aggregate_id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_waits_what_is_there_and_where_it_goes_on() {
        let mut report = HandoverReport {
            slot: "debezium".into(),
            confirmed: Lsn::new(256),
            from: Lsn::new(256),
            wal_end: Lsn::new(4096),
            waiting: 9,
            delivered: 4,
            topics: [("outbox.event.Order".to_owned(), 4)].into(),
            missing: 1,
            parked: 0,
            overtaking: 0,
            position: Lsn::new(512),
            is_taken: false,
        };
        let text = "slot debezium: confirmed 0/100, WAL ends at 0/1000\n\
                    events that wait: 9\n\
                    records of them in the topics: 4\n  outbox.event.Order: 4\n\
                    missing between them, to be sent first: 1\n\
                    nothing is changed; --take has `factlib run` begin at 0/200\n";
        assert_eq!(report.to_string(), text);
        (report.is_taken, report.overtaking, report.from) = (true, 2, Lsn::new(300));
        report.parked = 3;
        let text = report.to_string();
        assert!(text.contains("that are no events, sent as dead letters: 3\n"), "{text}");
        assert!(text.contains("taken over before, up to 0/12C\n"), "{text}");
        assert!(text.contains("missing between them, sent first: 1\n"), "{text}");
        assert!(
            text.contains("behind a missing one of their aggregate: 2, whose order is lost\n"),
            "{text}"
        );
        assert!(text.ends_with("taken over: `factlib run` begins at 0/200\n"), "{text}");
    }
}
