//! Records for Kafka: the record itself, batches of records and a client's answer for them, and the
//! rules for topic names. Independent of the client and of the record's source.

mod answer;
mod batch;
mod topic_name;

use bytes::Bytes;
use bytestring::ByteString;

pub use self::answer::Refused;
pub(crate) use self::{
    answer::{Answer, PartProgress},
    batch::{RecordBatch, Records},
    topic_name::{is_legal_in_topic, is_legal_topic, legal_topic},
};

/// Headers in order; a value of none is Kafka's null.
pub(crate) type Headers = Vec<(ByteString, Option<Bytes>)>;

/// A record for Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub key: Bytes,
    /// The value; none for a tombstone.
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// The partition; none if the key decides.
    pub partition: Option<i32>,
    /// Unix milliseconds; none for the time of sending.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// Adds a header, unless its name is not legal.
    pub fn add_header(&mut self, name: impl Into<ByteString>, value: impl Into<Bytes>) {
        let name = name.into();
        if is_legal_header(&name) {
            self.headers.push((name, Some(value.into())));
        }
    }

    /// Sets a header, replacing those of the same name.
    pub fn set_header(&mut self, name: &str, value: Bytes) {
        self.headers.retain(|(other, _)| **other != *name);
        self.headers.push((name.into(), Some(value)));
    }
}

/// True for a name without a NUL: consumers on librdkafka read header names as C strings.
pub(crate) fn is_legal_header(name: &str) -> bool {
    !name.contains('\0')
}
