//! A record as tests look at it.

use bytes::Bytes;

/// A record as a consumer receives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// Unix time in milliseconds, if the record has a timestamp.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In the order of the record; a header without a value counts as empty.
    pub headers: Vec<(String, Bytes)>,
}

impl ConsumedRecord {
    /// Returns the value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}
