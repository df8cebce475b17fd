//! The newest records by key, of a stretch of the topic: a plain struct, under the `PositionReader`.

use std::collections::HashMap;

use bytes::Bytes;
use factlib_kafka::client::{Fetched, FetchedRecord};

/// What is known about a slot's position.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::exactly_once) enum Newest {
    /// The value of the newest committed record; none if there is no record, or if it is a tombstone.
    Is(Option<Bytes>),
    /// It can't be told yet, for this reason.
    Undecided(&'static str),
}

/// The reason for an undecided position.
pub(super) const OPEN: &str = "a transaction stays open";

/// The newest records by key, of a stretch of the topic.
#[derive(Default)]
pub(super) struct Records {
    committed: HashMap<Bytes, Stored>,
    /// Keys and records of open transactions, by producer.
    open: HashMap<i64, Vec<(Bytes, Stored)>>,
}

/// Offset and value of a record.
type Stored = (i64, Option<Bytes>);

impl Records {
    /// Adds records and ends of transactions that come behind all others.
    pub fn add(&mut self, stretch: Fetched) {
        let mut ends = stretch.ends.into_iter().peekable();
        for record in stretch.records {
            while let Some(end) = ends.next_if(|end| end.offset < record.offset) {
                self.end(end.producer_id, end.is_committed);
            }
            match record.transaction_of {
                Some(producer) => self.in_transaction(producer, key(&record), stored(&record)),
                None => self.committed(&record),
            }
        }
        for end in ends {
            self.end(end.producer_id, end.is_committed);
        }
    }

    /// Adds a committed record.
    pub fn committed(&mut self, record: &FetchedRecord) {
        self.commit(key(record), stored(record));
    }

    /// Adds the committed records of another stretch.
    pub fn merge(&mut self, other: Records) {
        for (key, stored) in other.committed {
            self.commit(key, stored);
        }
    }

    fn in_transaction(&mut self, producer: i64, key: Bytes, stored: Stored) {
        self.open.entry(producer).or_default().push((key, stored));
    }

    fn end(&mut self, producer: i64, is_committed: bool) {
        let ended = self.open.remove(&producer).unwrap_or_default();
        for (key, stored) in ended.into_iter().filter(|_| is_committed) {
            self.commit(key, stored);
        }
    }

    /// The newest record is the last one in the log, as for Kafka's compaction; transactions may end in
    /// another order.
    fn commit(&mut self, key: Bytes, stored: Stored) {
        if self.committed.get(&key).is_none_or(|(offset, _)| *offset < stored.0) {
            self.committed.insert(key, stored);
        }
    }

    /// True if there is a record with this key, or may be one.
    pub fn has(&self, key: &[u8]) -> bool {
        self.committed.contains_key(key) || self.is_open(key)
    }

    pub fn newest(&self, key: &[u8]) -> Newest {
        match self.is_open(key) {
            true => Newest::Undecided(OPEN),
            false => Newest::Is(self.committed.get(key).and_then(|(_, value)| value.clone())),
        }
    }

    fn is_open(&self, key: &[u8]) -> bool {
        self.open.values().flatten().any(|(open, _)| open == key)
    }
}

fn key(record: &FetchedRecord) -> Bytes {
    record.key.as_ref().map(copied).unwrap_or_default()
}

fn stored(record: &FetchedRecord) -> Stored {
    (record.offset, record.value.as_ref().map(copied))
}

/// A copy that does not keep the whole answer of a broker.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(records: &mut Records, key: &'static str, offset: i64, value: &'static str) {
        records.commit(key.into(), (offset, Some(value.into())));
    }

    fn open(
        records: &mut Records,
        producer: i64,
        key: &'static str,
        offset: i64,
        value: &'static str,
    ) {
        records.in_transaction(producer, key.into(), (offset, Some(value.into())));
    }

    fn newest(records: &Records, key: &str) -> Option<String> {
        match records.newest(key.as_bytes()) {
            Newest::Is(value) => value.map(|value| String::from_utf8_lossy(&value).into_owned()),
            Newest::Undecided(why) => Some(why.to_owned()),
        }
    }

    #[test]
    fn the_end_of_a_transaction_decides_about_its_records_and_no_others() {
        let mut records = Records::default();
        committed(&mut records, "a", 0, "a1");
        open(&mut records, 1, "a", 1, "a2");
        open(&mut records, 2, "b", 2, "b1");
        assert_eq!(newest(&records, "a").as_deref(), Some(OPEN));
        records.end(2, true);
        assert_eq!(newest(&records, "b").as_deref(), Some("b1"));
        assert_eq!(newest(&records, "a").as_deref(), Some(OPEN), "1 is open");
        records.end(1, false);
        assert_eq!(newest(&records, "a").as_deref(), Some("a1"));
        open(&mut records, 1, "a", 5, "a3");
        open(&mut records, 1, "a", 6, "a4");
        records.end(1, true);
        assert_eq!(newest(&records, "a").as_deref(), Some("a4"));
        records.end(9, true);
        records.commit("b".into(), (9, None));
        assert_eq!((newest(&records, "b"), newest(&records, "c")), (None, None));
        assert!(records.has(b"b") && !records.has(b"c"));
    }

    #[test]
    fn the_last_record_in_the_log_counts_in_whatever_order_they_come() {
        let mut records = Records::default();
        committed(&mut records, "a", 9, "new");
        committed(&mut records, "a", 3, "old");
        assert_eq!(newest(&records, "a").as_deref(), Some("new"));
        // A tombstone from outside of the transaction, which ends later.
        open(&mut records, 1, "a", 10, "late");
        records.commit("a".into(), (11, None));
        records.end(1, true);
        assert_eq!(newest(&records, "a"), None);
        open(&mut records, 1, "b", 12, "open");
        committed(&mut records, "b", 2, "old");
        assert_eq!(newest(&records, "b").as_deref(), Some(OPEN));
        records.end(1, false);
        assert_eq!(newest(&records, "b").as_deref(), Some("old"));
    }
}
