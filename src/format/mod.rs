//! Formats: each makes an event into a record's value and headers, one file per format.
//!
//! | format | value | headers |
//! | --- | --- | --- |
//! | `protobuf` | the `OutboxEvent` as it was emitted | `event_id`, `event_type`, `LSN`, trace |
//! | [`raw`] | the payload | as `protobuf`, and all other fields |
//! | [`json`] | the `OutboxEvent` as JSON | as `protobuf`, and `content-type` |
//! | [`cloudevents`] | the payload, or a CloudEvent as JSON | `ce_…`, or `content-type` |
//!
//! The `confluent-…` formats put a schema id before the value; see [`SchemaRef`].
//!
//! A record is made when it is sent. Before that, only the event's bytes are kept in memory.

mod cloudevents;
mod content;
mod default_record;
mod json;
mod prefixes;
mod raw;
mod schema;
mod setting;

use bytes::Bytes;
use prost::Message as _;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) use self::{
    default_record::{default_record, event_headers, row_headers, with_default_record},
    prefixes::Prefixes,
    schema::{Schema, SchemaRef},
};
pub use self::{schema::SubjectStrategy, setting::Format};
use crate::{Event, Result, proto::OutboxEvent, record::Record};

/// The event that a record is made from.
#[derive(Clone, Copy)]
pub(crate) struct FormatInput<'a> {
    pub event: &'a Event,
    pub envelope: &'a OutboxEvent,
    /// The prefix of its default topic.
    pub prefix: &'a str,
}

/// Makes the record of an event in a format.
///
/// # Errors
/// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused) if the event can't be one.
pub(crate) fn render(format: Format, input: FormatInput<'_>) -> Result<Record> {
    let mut record = match format {
        Format::Protobuf | Format::ConfluentProtobuf => protobuf(input),
        Format::Raw | Format::ConfluentPayload => raw::record(input),
        Format::Json => json::record(input)?,
        Format::ConfluentJson => json::without_content_type(input)?,
        Format::CloudEvents => cloudevents::binary(input),
        Format::CloudEventsStructured => cloudevents::structured(input)?,
    };
    record.key = Bytes::copy_from_slice(input.event.key_bytes());
    record.headers.extend(row_headers(input.event).iter().cloned());
    record.partition = input.event.partition();
    record.timestamp_ms = input.event.record_time_ms();
    Ok(record)
}

/// Makes the value by encoding the envelope: a table's row may have come without one.
fn protobuf(input: FormatInput<'_>) -> Record {
    let value = Some(input.envelope.encode_to_vec().into());
    Record { value, headers: event_headers(input.event), ..Default::default() }
}

/// Formats a time as RFC 3339 in UTC; none for 0, which means that no time is set.
fn time(unix_ns: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(unix_ns.into()).ok()?;
    if unix_ns == 0 { None } else { at.format(&Rfc3339).ok() }
}

#[cfg(test)]
pub(crate) use self::tests::envelope_as_json;

#[cfg(test)]
mod tests;
