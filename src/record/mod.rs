//! What goes to Kafka, whoever makes it and whoever sends it: records, the rules for topics' names,
//! and how a client answers for what it was given.

mod answer;
mod batch;
mod topic_name;

use bytes::Bytes;
use bytestring::ByteString;

pub use self::answer::Refused;
pub(crate) use self::{
    answer::{Answer, PartProgress, Suspects},
    batch::{RecordBatch, RecordId, Records},
    topic_name::{is_legal_in_topic, is_legal_topic, legal_topic},
};

/// Headers in their order; Kafka's null is none.
pub(crate) type Headers = Vec<(ByteString, Option<Bytes>)>;

/// A record, as Kafka is given it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub key: Bytes,
    /// None for a tombstone.
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// None where the key decides.
    pub partition: Option<i32>,
    /// Unix milliseconds; none for the time when it is sent.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// Adds a header; a text that can't be the name of one is left out.
    pub fn add_header(&mut self, name: impl Into<ByteString>, value: impl Into<Bytes>) {
        let name = name.into();
        if is_legal_header(&name) {
            self.headers.push((name, Some(value.into())));
        }
    }

    /// Adds a header in place of those of the same name.
    pub fn set_header(&mut self, name: &str, value: Bytes) {
        self.headers.retain(|(other, _)| **other != *name);
        self.headers.push((name.into(), Some(value)));
    }

    /// Bytes of its headers.
    pub fn header_bytes(&self) -> usize {
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.headers.iter().map(|(name, value)| name.len() + bytes(value)).sum()
    }
}

/// False for a name with a NUL: librdkafka takes names as C strings.
pub(crate) fn is_legal_header(name: &str) -> bool {
    !name.contains('\0')
}
