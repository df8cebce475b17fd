//! Records for Kafka: the record itself, batches of records and a client's answer for them, and the
//! rules for topic names. Independent of the client and of the record's source.

mod answer;
mod batch;
mod event_id;
mod places;
mod topic_name;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

pub use self::answer::Refused;
pub(crate) use self::{
    answer::{Answer, PartProgress},
    batch::{RecordBatch, Records},
    event_id::{DEBEZIUM_ID_HEADER, EVENT_ID_HEADER, event_id, without_envelope},
    places::{Place, Places},
    topic_name::{is_legal_in_topic, is_legal_topic, legal_topic},
};

/// Headers in order; a value of none is Kafka's null.
pub(crate) type Headers = Vec<(ByteString, Option<Bytes>)>;

/// Name and value of a header.
pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Headers in order. Most records have no more than this: the event's, its trace's, its table's.
pub(crate) type BorrowedHeaders<'a> = SmallVec<[Header<'a>; 8]>;

/// A record for Kafka whose parts are slices of its source.
#[derive(Clone, Debug)]
pub(crate) struct BorrowedRecord<'a> {
    pub key: &'a [u8],
    /// The value; none for a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: BorrowedHeaders<'a>,
    /// The partition; none if the key decides.
    pub partition: Option<i32>,
    /// Unix milliseconds; none for the time of sending.
    pub timestamp_ms: Option<i64>,
}

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
    /// Borrows its parts.
    pub fn borrowed(&self) -> BorrowedRecord<'_> {
        let Record { key, value, headers, partition, timestamp_ms } = self;
        BorrowedRecord {
            key,
            value: value.as_deref(),
            headers: borrowed(headers).collect(),
            partition: *partition,
            timestamp_ms: *timestamp_ms,
        }
    }

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

/// Borrows headers.
pub(crate) fn borrowed(headers: &Headers) -> impl Iterator<Item = Header<'_>> {
    headers.iter().map(|(name, value)| (&**name, value.as_deref()))
}

/// Copies headers.
pub(crate) fn owned<'a>(headers: impl IntoIterator<Item = Header<'a>>) -> Headers {
    let copy = |(name, value): Header<'_>| (name.into(), value.map(Bytes::copy_from_slice));
    headers.into_iter().map(copy).collect()
}

/// True for a name without a NUL: consumers on librdkafka read header names as C strings.
pub(crate) fn is_legal_header(name: &str) -> bool {
    !name.contains('\0')
}
