//! Restores a letter's event, from which routes can make a new record. A parked row is read by the
//! present mapping of its table.

use bytes::Bytes;
use bytestring::ByteString;

use super::{header, letter::Letter};
use crate::{
    Event, Lsn, Result,
    config::OutboxTable,
    event::RowRecord,
    format,
    outbox::{ParkedRow, hex},
    proto::OutboxEvent,
};

/// Reads a parked row as an event by these tables; none for other letters.
///
/// # Errors
/// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused) with the reason why the row is still
/// not an event.
pub(super) fn event_of_row(
    letter: &Letter,
    bytes: Option<&Bytes>,
    tables: &[OutboxTable],
) -> Option<Result<Event>> {
    let row = letter.header(header::ROW)?;
    let lsn = letter.lsn().unwrap_or(Lsn::ZERO);
    Some(ParkedRow::event(row, bytes.map_or(&[], |bytes| bytes), tables, lsn))
}

/// Restores the event as the relay had it; none if the bytes are not an event, or are a payload that
/// was parked without its aggregate type.
pub(super) fn event(letter: &Letter, bytes: Option<&Bytes>) -> Option<Event> {
    let lsn = letter.lsn().unwrap_or(Lsn::ZERO);
    let topic_prefix = letter.header(header::TOPIC_PREFIX).map(Into::into);
    let timestamp_ms = letter.header(header::RECORD_TIME_MS).and_then(|ms| ms.parse().ok());
    let raw = bytes.cloned().unwrap_or_default();
    if letter.is_payload() {
        let key = letter.key.clone()?;
        let text = std::str::from_utf8(&key).ok().map(str::to_owned);
        let is_binary = text.is_none();
        let event = OutboxEvent {
            id: letter.event_id().into(),
            aggregate_type: letter.header(header::AGGREGATE_TYPE)?.into(),
            aggregate_id: text.unwrap_or_else(|| hex(&key)),
            event_type: letter.event_type().into(),
            payload: raw.clone(),
            ..Default::default()
        };
        let row = RowRecord {
            topic_prefix,
            // The first header is the event's id.
            headers: own_headers(letter).skip(1).collect(),
            payload_is_value: true,
            is_tombstone: bytes.is_none(),
            timestamp_ms,
            key: is_binary.then_some(key),
            ..RowRecord::default()
        };
        return Event::from_row(event, raw, row, lsn).ok();
    }
    let event = Event::parse(raw.clone(), lsn).ok()?;
    // A letter whose bytes are in the table has no trace headers.
    let usual = if letter.is_kept_in_table() { 3 } else { format::event_headers(&event).len() };
    let headers: Vec<_> = own_headers(letter).skip(usual).collect();
    let key = letter.key.clone().filter(|key| hex(key) == event.key());
    if headers.is_empty() && topic_prefix.is_none() && key.is_none() && timestamp_ms.is_none() {
        return Some(event);
    }
    let row = RowRecord { topic_prefix, headers, key, timestamp_ms, ..RowRecord::default() };
    Event::from_row(event.decode().ok()?, raw, row, lsn).ok()
}

/// Headers of the record that was refused.
fn own_headers(letter: &Letter) -> impl Iterator<Item = (ByteString, Option<Bytes>)> {
    let own = letter.headers.iter().filter(|(key, _)| !header::ALL.contains(&key.as_str()));
    own.map(|(key, value)| (key.as_str().into(), value.clone()))
}
