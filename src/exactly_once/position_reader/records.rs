//! The newest records by key, of a stretch of the topic: a plain struct, under the `PositionReader`.

use std::collections::HashMap;

use bytes::Bytes;
use factlib_kafka::client::Fetched;

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
    committed: HashMap<Bytes, Option<Bytes>>,
    /// Keys and values of open transactions, by producer.
    open: HashMap<i64, Vec<(Bytes, Option<Bytes>)>>,
}

impl Records {
    pub fn add(&mut self, stretch: Fetched) {
        let mut ends = stretch.ends.into_iter().peekable();
        for record in stretch.records {
            while let Some(end) = ends.next_if(|end| end.offset < record.offset) {
                self.end(end.producer_id, end.is_committed);
            }
            let (key, value) = (record.key.unwrap_or_default(), record.value);
            self.record(copied(key), value.map(copied), record.transaction_of);
        }
        for end in ends {
            self.end(end.producer_id, end.is_committed);
        }
    }

    fn record(&mut self, key: Bytes, value: Option<Bytes>, transaction_of: Option<i64>) {
        match transaction_of {
            Some(producer) => self.open.entry(producer).or_default().push((key, value)),
            None => {
                self.committed.insert(key, value);
            }
        }
    }

    fn end(&mut self, producer: i64, is_committed: bool) {
        let ended = self.open.remove(&producer).unwrap_or_default();
        if is_committed {
            self.committed.extend(ended);
        }
    }

    /// Adds committed records from before all others.
    pub fn add_older(&mut self, records: HashMap<Bytes, Option<Bytes>>) {
        for (key, value) in records {
            self.committed.entry(key).or_insert(value);
        }
    }

    /// True if there is a record with this key, or may be one.
    pub fn has(&self, key: &[u8]) -> bool {
        self.committed.contains_key(key) || self.is_open(key)
    }

    pub fn newest(&self, key: &[u8]) -> Newest {
        match self.is_open(key) {
            true => Newest::Undecided(OPEN),
            false => Newest::Is(self.committed.get(key).cloned().flatten()),
        }
    }

    fn is_open(&self, key: &[u8]) -> bool {
        self.open.values().flatten().any(|(open, _)| open == key)
    }
}

/// A copy that does not keep the whole answer of a broker.
pub(super) fn copied(bytes: Bytes) -> Bytes {
    Bytes::copy_from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(records: &mut Records, key: &'static str, value: &'static str, of: Option<i64>) {
        records.record(key.into(), Some(value.into()), of);
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
        add(&mut records, "a", "a1", None);
        add(&mut records, "a", "a2", Some(1));
        add(&mut records, "b", "b1", Some(2));
        assert_eq!(newest(&records, "a").as_deref(), Some(OPEN));
        records.end(2, true);
        assert_eq!(newest(&records, "b").as_deref(), Some("b1"));
        assert_eq!(newest(&records, "a").as_deref(), Some(OPEN), "1 is open");
        records.end(1, false);
        assert_eq!(newest(&records, "a").as_deref(), Some("a1"));
        add(&mut records, "a", "a3", Some(1));
        add(&mut records, "a", "a4", Some(1));
        records.end(1, true);
        assert_eq!(newest(&records, "a").as_deref(), Some("a4"));
        records.end(9, true);
        records.record("b".into(), None, None);
        assert_eq!((newest(&records, "b"), newest(&records, "c")), (None, None));
        assert!(records.has(b"b") && !records.has(b"c"));
    }

    #[test]
    fn older_records_replace_none() {
        let mut records = Records::default();
        add(&mut records, "a", "new", None);
        add(&mut records, "b", "open", Some(1));
        records.record("gone".into(), None, None);
        let old = ["a", "b", "c", "gone"].map(|key| (key.into(), Some("old".into())));
        records.add_older(old.into());
        assert_eq!(newest(&records, "a").as_deref(), Some("new"));
        assert_eq!(newest(&records, "b").as_deref(), Some(OPEN));
        assert_eq!(newest(&records, "c").as_deref(), Some("old"));
        assert_eq!(newest(&records, "gone"), None);
        records.end(1, false);
        assert_eq!(newest(&records, "b").as_deref(), Some("old"));
    }
}
