//! The default record of an event: the `OutboxEvent` as it was emitted.

use bytes::Bytes;

use crate::{
    Event, Lsn,
    record::{BorrowedHeaders, BorrowedRecord, Headers, Record, borrowed, is_legal_header, owned},
};

/// Makes the record of an event whose route and format change nothing, without copies.
pub(crate) fn with_default_record<T>(
    event: &Event,
    then: impl FnOnce(BorrowedRecord<'_>) -> T,
) -> T {
    let mut lsn = [0; Lsn::TEXT_BYTES];
    let payload_is_value = event.row().is_some_and(|row| row.payload_is_value);
    let mut headers = BorrowedHeaders::new();
    match payload_is_value {
        // As Debezium does.
        true => {
            let own = event.row().and_then(|row| row.id_header.as_deref());
            headers.push(("id", Some(own.unwrap_or_else(|| event.id().as_bytes()))));
        }
        false => add_event_headers(event, event.lsn().encode(&mut lsn), &mut headers),
    }
    headers.extend(borrowed(row_headers(event)));
    let tombstone = event.row().is_some_and(|row| row.is_tombstone);
    then(BorrowedRecord {
        key: event.key_bytes(),
        value: (!tombstone).then_some(event.raw()),
        headers,
        partition: event.partition(),
        timestamp_ms: event.record_time_ms(),
    })
}

/// Makes the record of an event whose route and format change nothing.
pub(crate) fn default_record(event: &Event) -> Record {
    with_default_record(event, |record| Record {
        key: Bytes::copy_from_slice(record.key),
        value: record.value.map(|_| event.raw().clone()),
        headers: owned(record.headers),
        partition: record.partition,
        timestamp_ms: record.timestamp_ms,
    })
}

/// Additional headers that a table's row or a handler gave the event.
pub(crate) fn row_headers(event: &Event) -> &Headers {
    static NONE: Headers = Headers::new();
    event.row().map_or(&NONE, |row| &row.headers)
}

/// Headers of every event, as the Go worker sends them: `event_id`, `event_type`, `LSN` and, with a
/// trace, `trace_id`, `span_id` and the trace's metadata.
pub(crate) fn event_headers(event: &Event) -> Headers {
    let (mut lsn, mut headers) = ([0; Lsn::TEXT_BYTES], BorrowedHeaders::new());
    add_event_headers(event, event.lsn().encode(&mut lsn), &mut headers);
    owned(headers)
}

fn add_event_headers<'a>(event: &'a Event, lsn: &'a str, headers: &mut BorrowedHeaders<'a>) {
    let mut add = |name: &'a str, value: &'a str| headers.push((name, Some(value.as_bytes())));
    add("event_id", event.id());
    add("event_type", event.event_type());
    add("LSN", lsn);
    let Some(trace) = event.trace() else { return };
    add("trace_id", &trace.trace_id);
    add("span_id", &trace.span_id);
    for (name, value) in trace.metadata.iter().filter(|(name, _)| is_legal_header(name)) {
        add(name, value);
    }
}
