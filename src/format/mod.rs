//! What an event's record is made of, one file a format.
//!
//! | format | value | headers |
//! | --- | --- | --- |
//! | `protobuf` | the `OutboxEvent` as it was emitted | `event_id`, `event_type`, `LSN`, trace |
//! | [`raw`] | the payload | these, and all other fields |
//! | [`json`] | the `OutboxEvent` as JSON | as `protobuf`, and `content-type` |
//! | [`cloudevents`] | the payload, or a CloudEvent as JSON | `ce_…`, or `content-type` |
//!
//! What `confluent-…` puts before a value is the topic's to say, see `schema_registry`.
//!
//! A record is made when it is sent, and librdkafka keeps what it needs of it: until then,
//! and until it is acknowledged, the event's own bytes are all there is.

mod cloudevents;
mod content;
mod json;
mod raw;
mod setting;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rdkafka::message::{Headers, OwnedHeaders};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::setting::Format;
use crate::{
    Event, Result,
    kafka::record::{event_headers, record_headers, record_key, record_value, row_headers},
    proto::OutboxEvent,
};

/// A record that is not the usual one of its event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MadeRecord {
    pub key: Bytes,
    /// None for a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<(Arc<str>, Option<Bytes>)>,
    /// Where a route names one.
    pub partition: Option<i32>,
}

/// What a record is made from.
#[derive(Clone, Copy)]
pub(crate) struct Making<'a> {
    pub event: &'a Event,
    pub envelope: &'a OutboxEvent,
    /// What comes before the dot in its usual topic.
    pub prefix: &'a str,
}

/// The record of an event in a format.
///
/// # Errors
/// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused): why the event can't be one.
pub(crate) fn make(format: Format, making: Making<'_>) -> Result<MadeRecord> {
    let mut record = match format {
        Format::Protobuf | Format::ConfluentProtobuf => protobuf(making),
        Format::Raw | Format::ConfluentPayload => raw::record(making),
        Format::Json => json::record(making)?,
        Format::ConfluentJson => json::unnamed(making)?,
        Format::CloudEvents => cloudevents::binary(making),
        Format::CloudEventsStructured => cloudevents::structured(making)?,
    };
    record.key = Bytes::copy_from_slice(record_key(making.event));
    record.headers.extend(owned(&row_headers(making.event)));
    Ok(record)
}

/// The envelope, of an event that came without.
fn protobuf(making: Making<'_>) -> MadeRecord {
    let value = Some(making.envelope.encode_to_vec().into());
    MadeRecord { value, headers: owned(&event_headers(making.event)), ..Default::default() }
}

fn owned(headers: &OwnedHeaders) -> Vec<(Arc<str>, Option<Bytes>)> {
    let owned = |value: &[u8]| Bytes::copy_from_slice(value);
    headers.iter().map(|header| (header.key.into(), header.value.map(owned))).collect()
}

/// A time as RFC 3339 has it, in UTC; none for 0, which is no time.
fn time(unix_ns: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(unix_ns.into()).ok()?;
    if unix_ns == 0 { None } else { at.format(&Rfc3339).ok() }
}

impl MadeRecord {
    /// The record that an event is where nothing else is said.
    pub fn usual(event: &Event) -> Self {
        MadeRecord {
            key: Bytes::copy_from_slice(record_key(event)),
            value: record_value(event).map(|_| event.raw().clone()),
            headers: owned(&record_headers(event)),
            partition: None,
        }
    }

    /// Adds a header; what can't be the name of one is left out.
    fn header(&mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) {
        let name = name.into();
        // librdkafka takes names as C strings: one with a NUL can't be sent.
        if !name.contains('\0') {
            self.headers.push((name, Some(value.into())));
        }
    }

    /// Adds a header in place of those of the same name.
    pub fn set_header(&mut self, name: &str, value: Bytes) {
        self.headers.retain(|(other, _)| **other != *name);
        self.headers.push((name.into(), Some(value)));
    }
}

#[cfg(test)]
pub(crate) use self::tests::envelope_as_json;

#[cfg(test)]
mod tests;
