//! The default record of an event: the `OutboxEvent` as it was emitted.

use bytes::Bytes;

use crate::{
    Event, Lsn,
    record::{Headers, Record, is_legal_header},
};

/// Makes the record of an event whose route and format change nothing.
pub(crate) fn default_record(event: &Event) -> Record {
    let payload_is_value = event.row().is_some_and(|row| row.payload_is_value);
    let mut headers = match payload_is_value {
        // As Debezium does.
        true => vec![("id".into(), Some(event.id_bytes()))],
        false => event_headers(event),
    };
    headers.extend(row_headers(event).iter().cloned());
    let tombstone = event.row().is_some_and(|row| row.is_tombstone);
    Record {
        key: event.key_bytes(),
        value: (!tombstone).then(|| event.raw().clone()),
        headers,
        partition: event.partition(),
        timestamp_ms: event.record_time_ms(),
    }
}

/// Additional headers that a table's row or a handler gave the event.
pub(crate) fn row_headers(event: &Event) -> &Headers {
    static NONE: Headers = Headers::new();
    event.row().map_or(&NONE, |row| &row.headers)
}

/// Headers of every event, as the Go worker sends them: `event_id`, `event_type`, `LSN` and, with a
/// trace, `trace_id`, `span_id` and the trace's metadata.
pub(crate) fn event_headers(event: &Event) -> Headers {
    let trace = event.trace();
    let mut headers = Headers::with_capacity(3 + trace.map_or(0, |trace| 2 + trace.metadata.len()));
    let mut add = |name: &'static str, value: Bytes| headers.push((name.into(), Some(value)));
    add("event_id", event.id_bytes());
    add("event_type", event.event_type_bytes());
    let mut buffer = [0; Lsn::TEXT_BYTES];
    add("LSN", Bytes::copy_from_slice(event.lsn().encode(&mut buffer).as_bytes()));
    let Some(trace) = trace else { return headers };
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    add("trace_id", copy(&trace.trace_id));
    add("span_id", copy(&trace.span_id));
    let more = trace.metadata.iter().filter(|(name, _)| is_legal_header(name));
    headers.extend(more.map(|(name, value)| (name.as_str().into(), Some(copy(value)))));
    headers
}
