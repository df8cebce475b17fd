//! Makes the record of a dead letter: a refused event in, key, value and headers out.

use bytes::Bytes;

use super::{TABLE, header};
use crate::{
    Event, Refusal,
    clock::now_ms,
    format,
    record::{Headers, Record},
};

/// Maximum length of a text in the record of an event that no topic takes: the record must be small.
pub(super) const KEPT_TEXT_MAX: usize = 256;

/// Makes the letter of an event that was refused.
///
/// Its value is the event's bytes, or empty if the table keeps them because no topic would take them.
/// The partition and timestamp that the event asks for are dropped: they were meant for another topic,
/// and the dead-letter topic could refuse the record for them, too.
pub(crate) fn record(event: &Event, refusal: &Refusal) -> Record {
    let mut record =
        Record { partition: None, timestamp_ms: None, ..format::default_record(event) };
    if refusal.kept {
        record.value = Some(Bytes::new());
        // A bare payload does not contain the key, so its record keeps key and headers whole.
        if !is_payload(event) {
            record.key = kept_key(event);
            record.headers = kept_headers(event);
        }
    }
    add_refusal_headers(&mut record.headers, event, refusal);
    record
}

/// True for a dead letter whose bytes go to the table: it was too large for a topic, or the
/// dead-letter topic refused it.
pub(crate) fn is_kept_in_table(event: &Event) -> bool {
    event.refusal().is_some_and(|refusal| refusal.kept)
}

/// Cuts a text for the record and the row of an event in the table, and replaces NULs, which
/// PostgreSQL does not accept.
pub(crate) fn kept_text(text: &str) -> String {
    kept_beginning(text, KEPT_TEXT_MAX)
}

/// Like [`kept_text`], cut to this many bytes.
pub(crate) fn kept_beginning(text: &str, max_bytes: usize) -> String {
    beginning(text, max_bytes).replace('\0', "\u{fffd}")
}

/// Returns the beginning of a text, at most so many bytes.
fn beginning(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// True if the value is the bare payload of a table's row.
fn is_payload(event: &Event) -> bool {
    event.row().is_some_and(|row| row.payload_is_value)
}

/// Returns the event's key, cut.
fn kept_key(event: &Event) -> Bytes {
    match event.binary_key() {
        Some(key) => key.slice(..KEPT_TEXT_MAX.min(key.len())),
        None => Bytes::copy_from_slice(beginning(event.key(), KEPT_TEXT_MAX).as_bytes()),
    }
}

/// Returns the event's headers, cut and without its trace.
fn kept_headers(event: &Event) -> Headers {
    let mut headers = Headers::new();
    add(&mut headers, "event_id", kept_text(event.id()));
    add(&mut headers, "event_type", kept_text(event.event_type()));
    add(&mut headers, "LSN", event.lsn().to_string());
    headers.extend(format::row_headers(event).iter().cloned());
    headers
}

/// Adds the [headers](header) of a dead letter.
fn add_refusal_headers(headers: &mut Headers, event: &Event, refusal: &Refusal) {
    let topic = refusal.topic.as_deref().unwrap_or_default();
    add(headers, header::ERROR, refusal.error.to_string());
    add(headers, header::TOPIC, topic.to_owned());
    add(headers, header::TIME_MS, now_ms().to_string());
    if let Some(handler) = &refusal.handler {
        add(headers, header::HANDLER, handler.to_string());
    }
    if refusal.kept {
        add(headers, header::TABLE, TABLE.to_owned());
    }
    if let Some(time_ms) = event.record_time_ms() {
        add(headers, header::RECORD_TIME_MS, time_ms.to_string());
    }
    if let Some(prefix) = event.row().and_then(|row| row.topic_prefix.as_deref()) {
        add(headers, header::TOPIC_PREFIX, prefix.to_owned());
    }
    if let Some(parked) = event.row().and_then(|row| row.parked.as_deref()) {
        add(headers, header::ROW, parked.to_owned());
    }
    if is_payload(event) {
        add(headers, header::AGGREGATE_TYPE, kept_text(event.aggregate_type()));
        add(headers, header::EVENT_ID, kept_text(event.id()));
        add(headers, header::EVENT_TYPE, kept_text(event.event_type()));
        add(headers, header::LSN, event.lsn().to_string());
    }
}

fn add(headers: &mut Headers, name: &'static str, value: String) {
    headers.push((name.into(), Some(value.into())));
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        Error, ErrorKind, Lsn,
        emit::Fact,
        proto::{OutboxEvent, TraceInfo},
    };

    fn event(trace_info: Option<TraceInfo>) -> Event {
        let event = OutboxEvent {
            id: "the-id".into(),
            aggregate_type: "user".into(),
            event_type: "user.created".into(),
            trace_info,
            ..Default::default()
        };
        Event::parse(event.encode_to_vec().into(), Lsn::new(0x16_0000_0001)).expect("well formed")
    }

    fn texts(headers: &Headers) -> Vec<(&str, &[u8])> {
        headers.iter().map(|(key, value)| (&**key, value.as_deref().unwrap_or_default())).collect()
    }

    fn letter(event: &Event) -> Record {
        record(event, event.refusal().expect("it is refused"))
    }

    #[test]
    fn headers_without_a_trace() {
        let expected: Vec<(&str, &[u8])> =
            vec![("event_id", b"the-id"), ("event_type", b"user.created"), ("LSN", b"16/1")];
        assert_eq!(texts(&format::default_record(&event(None)).headers), expected);
    }

    #[test]
    fn headers_of_a_trace_follow() {
        let metadata = [("tenant", "a"), ("n\0l", "never sent")];
        let trace = TraceInfo {
            trace_id: "t".into(),
            span_id: "s".into(),
            metadata: metadata.map(|(k, v)| (k.into(), v.into())).into(),
        };
        let headers = format::default_record(&event(Some(trace))).headers;
        let expected: Vec<(&str, &[u8])> =
            vec![("trace_id", b"t"), ("span_id", b"s"), ("tenant", b"a")];
        assert_eq!(texts(&headers).split_off(3), expected);
    }

    #[test]
    fn metadata_may_ask_for_key_partition_time_and_headers() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let fact = Fact::new("user", "u1", "e").key("k").partition(3).timestamp_ms(7);
        let fact = fact.metadata("traceparent", parent).metadata("factlib.trace.tenant", "a");
        let raw = fact.to_event().expect("valid").encode_to_vec();
        let event = Event::parse(raw.into(), Lsn::ZERO).expect("well formed");
        let Record { key, headers, partition, timestamp_ms, .. } = format::default_record(&event);
        assert_eq!((&key[..], partition, timestamp_ms), (&b"k"[..], Some(3), Some(7)));
        let expected: Vec<(&str, &[u8])> = vec![
            ("trace_id", b"4bf92f3577b34da6a3ce929d0e0e4736"),
            ("span_id", b"00f067aa0ba902b7"),
            ("tenant", b"a"),
            ("traceparent", parent.as_bytes()),
        ];
        assert_eq!(texts(&headers).split_off(3), expected);
        let refused = event.refused(Refusal::new(Error::new(ErrorKind::RecordRefused, "no")));
        let Record { headers, partition, timestamp_ms, .. } = letter(&refused);
        assert_eq!((partition, timestamp_ms), (None, None));
        assert!(texts(&headers).contains(&("dead_letter_record_time_ms", b"7")));
    }

    #[test]
    fn a_letter_whose_bytes_are_in_the_table_has_a_small_record() {
        let large = OutboxEvent {
            id: format!("a\0{}", "é".repeat(1_000)),
            aggregate_type: "user".into(),
            aggregate_id: "ü".repeat(1_000),
            trace_info: Some(TraceInfo { trace_id: "t".repeat(1_000), ..Default::default() }),
            ..Default::default()
        };
        let event = Event::parse(large.encode_to_vec().into(), Lsn::ZERO).expect("well formed");
        assert_eq!(format::default_record(&event).key, large.aggregate_id.as_bytes());
        let kept = event.refused(Refusal::new(Error::new(ErrorKind::RecordTooLarge, "too large")));
        let Record { key, value, headers, .. } = letter(&kept);
        assert_eq!((key.len(), value.as_deref()), (KEPT_TEXT_MAX, Some(&b""[..])));
        let headers = texts(&headers);
        assert!(headers.iter().all(|(key, _)| *key != "trace_id"));
        let id = std::str::from_utf8(headers[0].1).expect("cut between characters");
        assert!(id.starts_with("a\u{fffd}é") && id.len() < KEPT_TEXT_MAX + 3, "{id}");
    }
}
