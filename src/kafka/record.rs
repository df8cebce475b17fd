//! What an event becomes in Kafka: topic, key, value, headers.

use rdkafka::{
    message::{Header, OwnedHeaders},
    types::RDKafkaErrorCode,
};

use crate::{Error, ErrorKind, Event, Refusal, clock::now_ms, format::MadeRecord};

/// Of a text of an event that is too large for every topic: its record must not be.
const KEPT_TEXT_MAX: usize = 256;

/// What Kafka is given.
pub(crate) struct Record<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub headers: OwnedHeaders,
    /// None where the key decides.
    pub partition: Option<i32>,
    /// None for now.
    pub timestamp_ms: Option<i64>,
}

impl<'a> Record<'a> {
    /// The event's usual record, or what a format or a route made of it.
    pub fn new(event: &'a Event, made: Option<&'a MadeRecord>) -> Self {
        let (partition, timestamp_ms) = record_place(event);
        match made {
            Some(made) => Record {
                key: &made.key,
                value: made.value.as_deref(),
                headers: made_headers(made),
                partition: made.partition.or(partition),
                timestamp_ms,
            },
            None => Record {
                key: record_key(event),
                value: record_value(event),
                headers: record_headers(event),
                partition,
                timestamp_ms,
            },
        }
    }
}

/// The event's own bytes, none for a tombstone; empty where these are kept in the table
/// of dead letters, because no topic would take them.
pub(crate) fn record_value(event: &Event) -> Option<&[u8]> {
    match event.row() {
        _ if is_kept_in_table(event) => Some(&[]),
        Some(row) if row.is_tombstone => None,
        _ => Some(event.raw()),
    }
}

/// The forms that an event's record has on its way to being parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LetterForm {
    /// No dead letter.
    None,
    /// A letter with the event's bytes.
    Whole,
    /// A letter without them: they are in the table.
    Kept,
}

impl LetterForm {
    pub fn of(event: &Event) -> Self {
        match event.refusal() {
            None => LetterForm::None,
            Some(refusal) if refusal.kept => LetterForm::Kept,
            Some(_) => LetterForm::Whole,
        }
    }
}

/// True for a dead letter that the dead-letter topic does not take whole: one that was refused
/// for its size anywhere, or by that topic for whatever reason.
pub(crate) fn is_kept_in_table(event: &Event) -> bool {
    LetterForm::of(event) == LetterForm::Kept
}

/// The event's key, cut short where the table has the bytes.
pub(crate) fn record_key(event: &Event) -> &[u8] {
    // Where the bytes are a payload, they do not say the key again.
    let kept = is_kept_in_table(event) && !is_payload(event);
    match (event.binary_key(), event.key()) {
        (Some(key), _) if kept => key.get(..KEPT_TEXT_MAX).unwrap_or(key),
        (Some(key), _) => key,
        (None, key) if kept => beginning(key).as_bytes(),
        (None, key) => key.as_bytes(),
    }
}

/// The partition and the time that an event asks for. Of a dead letter, which goes to
/// another topic, they would mean something else: the topic would refuse it for them as well.
pub(crate) fn record_place(event: &Event) -> (Option<i32>, Option<i64>) {
    match event.refusal() {
        None => (event.partition(), record_time(event)),
        Some(_) => (None, None),
    }
}

/// The time that an event asks for, in milliseconds, whether it is a dead letter or not.
fn record_time(event: &Event) -> Option<i64> {
    let of_row = event.row().and_then(|row| row.timestamp_ms);
    // librdkafka takes 0 for none.
    event.timestamp_ms().or(of_row).filter(|ms| *ms > 0)
}

/// The error for a record that asks for a place that Kafka does not have; none where the broker's
/// answer is about something else.
pub(crate) fn place_refused(record: &Record<'_>, code: Option<RDKafkaErrorCode>) -> Option<Error> {
    use RDKafkaErrorCode::{InvalidTimestamp, UnknownPartition};

    let what = match (code?, record.partition, record.timestamp_ms) {
        (UnknownPartition, Some(partition), _) => {
            format!("its topic has no partition {partition}")
        }
        (InvalidTimestamp, _, Some(ms)) => {
            format!("its topic takes no record of the time {ms} ms")
        }
        _ => return None,
    };
    Some(Error::new(ErrorKind::RecordRefused, what))
}

/// A text of an event that is kept in the table, as its record and its row have it: an
/// event may be large for its texts alone, and PostgreSQL takes no NUL.
pub(crate) fn kept_text(text: &str) -> String {
    beginning(text).replace('\0', "\u{fffd}")
}

/// The beginning of a text, of at most [`KEPT_TEXT_MAX`] bytes.
fn beginning(text: &str) -> &str {
    let end = (0..=KEPT_TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// True where the value is the payload of a table's row by itself.
fn is_payload(event: &Event) -> bool {
    event.row().is_some_and(|row| row.payload_is_value)
}

/// The event's headers: those of the Go worker and more columns of its table, or
/// `id` and these with Debezium's conventions.
pub(crate) fn record_headers(event: &Event) -> OwnedHeaders {
    let mut headers = match is_payload(event) {
        true => OwnedHeaders::new().insert(Header { key: "id", value: Some(event.id()) }),
        false => event_headers(event),
    };
    for (key, value) in event.row().map_or(&[][..], |row| &row.headers) {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    match event.refusal() {
        Some(refusal) => refusal_headers(headers, event, refusal),
        None => headers,
    }
}

fn made_headers(made: &MadeRecord) -> OwnedHeaders {
    let all = OwnedHeaders::new_with_capacity(made.headers.len());
    made.headers
        .iter()
        .fold(all, |all, (key, value)| all.insert(Header { key, value: value.as_deref() }))
}

/// The headers that a table's row has of its own.
pub(crate) fn row_headers(event: &Event) -> OwnedHeaders {
    let headers = event.row().map_or(&[][..], |row| &row.headers);
    headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
        all.insert(Header { key, value: value.as_deref() })
    })
}

/// The headers that the Go worker sends: `event_id`, `event_type`, `LSN` and,
/// with a trace, `trace_id`, `span_id` and the trace's metadata. A dead letter whose
/// bytes are kept in the table has its texts cut short, and no trace.
pub(crate) fn event_headers(event: &Event) -> OwnedHeaders {
    let kept = is_kept_in_table(event);
    let trace = event.trace().filter(|_| !kept);
    let count = 3 + trace.map_or(0, |trace| 2 + trace.metadata.len());
    let mut headers = OwnedHeaders::new_with_capacity(count);
    for (key, text) in [("event_id", event.id()), ("event_type", event.event_type())] {
        headers = match kept {
            true => header(headers, key, &kept_text(text)),
            false => header(headers, key, text),
        };
    }
    headers = header(headers, "LSN", &event.lsn().to_string());
    if let Some(trace) = trace {
        headers = header(headers, "trace_id", &trace.trace_id);
        headers = header(headers, "span_id", &trace.span_id);
        for (key, value) in &trace.metadata {
            // librdkafka takes names as C strings: one with a NUL can't be sent.
            if !key.contains('\0') {
                headers = header(headers, key, value);
            }
        }
    }
    headers
}

/// What a dead letter has [beside](dead_letter) its own headers.
fn refusal_headers(mut headers: OwnedHeaders, event: &Event, refusal: &Refusal) -> OwnedHeaders {
    let topic = refusal.topic.as_deref().unwrap_or_default();
    headers = header(headers, dead_letter::ERROR, &refusal.error.to_string());
    headers = header(headers, dead_letter::TOPIC, topic);
    headers = header(headers, dead_letter::TIME_MS, &now_ms().to_string());
    if let Some(handler) = &refusal.handler {
        headers = header(headers, dead_letter::HANDLER, handler);
    }
    if is_kept_in_table(event) {
        headers = header(headers, dead_letter::TABLE, crate::dead_letter::TABLE);
    }
    if let Some(time_ms) = record_time(event) {
        headers = header(headers, dead_letter::RECORD_TIME_MS, &time_ms.to_string());
    }
    if let Some(prefix) = event.row().and_then(|row| row.topic_prefix.as_deref()) {
        headers = header(headers, dead_letter::TOPIC_PREFIX, prefix);
    }
    if let Some(parked) = event.row().and_then(|row| row.parked.as_deref()) {
        headers = header(headers, dead_letter::ROW, parked);
    }
    if is_payload(event) {
        headers = header(headers, dead_letter::AGGREGATE_TYPE, &kept_text(event.aggregate_type()));
        headers = header(headers, dead_letter::EVENT_ID, &kept_text(event.id()));
        headers = header(headers, dead_letter::EVENT_TYPE, &kept_text(event.event_type()));
        headers = header(headers, dead_letter::LSN, &event.lsn().to_string());
    }
    headers
}

fn header(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

/// Headers of a dead letter, behind those of the record that it could not be.
pub(crate) mod dead_letter {
    /// Why it was refused.
    pub const ERROR: &str = "dead_letter_error";
    /// Where it should have gone; empty where that could not be told.
    pub const TOPIC: &str = "dead_letter_topic";
    /// When it was parked, in Unix milliseconds.
    pub const TIME_MS: &str = "dead_letter_time_ms";
    /// The aggregate type of the handler that had it; only where no topic refused it.
    pub const HANDLER: &str = "dead_letter_handler";
    /// The table that has its bytes, under its LSN; the record's value is empty.
    pub const TABLE: &str = "dead_letter_table";
    /// What the headers `event_id`, `event_type` and `LSN` would say, where the record has
    /// none of these because its value is a payload by itself.
    pub const EVENT_ID: &str = "dead_letter_event_id";
    pub const AGGREGATE_TYPE: &str = "dead_letter_aggregate_type";
    pub const EVENT_TYPE: &str = "dead_letter_event_type";
    pub const LSN: &str = "dead_letter_lsn";
    /// What a table says comes before the dot in a topic's name.
    pub const TOPIC_PREFIX: &str = "dead_letter_topic_prefix";
    /// How to read the value, which is a table's row as JSON: its table, its commit's time and the
    /// types of its columns.
    pub const ROW: &str = "dead_letter_row";
    /// The time that its record asked for, in Unix milliseconds: the letter has that of parking.
    pub const RECORD_TIME_MS: &str = "dead_letter_record_time_ms";
    /// All of these.
    pub const ALL: [&str; 12] = [
        ERROR,
        TOPIC,
        TIME_MS,
        HANDLER,
        TABLE,
        EVENT_ID,
        AGGREGATE_TYPE,
        EVENT_TYPE,
        LSN,
        TOPIC_PREFIX,
        ROW,
        RECORD_TIME_MS,
    ];
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use rdkafka::message::Headers;

    use super::*;
    use crate::{
        Lsn,
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

    fn texts(headers: &OwnedHeaders) -> Vec<(&str, &[u8])> {
        headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect()
    }

    #[test]
    fn headers_without_a_trace() {
        let expected: Vec<(&str, &[u8])> =
            vec![("event_id", b"the-id"), ("event_type", b"user.created"), ("LSN", b"16/1")];
        assert_eq!(texts(&record_headers(&event(None))), expected);
    }

    #[test]
    fn headers_of_a_trace_follow() {
        let metadata = [("tenant", "a"), ("n\0l", "never sent")];
        let trace = TraceInfo {
            trace_id: "t".into(),
            span_id: "s".into(),
            metadata: metadata.map(|(k, v)| (k.into(), v.into())).into(),
        };
        let headers = record_headers(&event(Some(trace)));
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
        assert_eq!((record_key(&event), record_place(&event)), (&b"k"[..], (Some(3), Some(7))));
        let headers = record_headers(&event);
        let expected: Vec<(&str, &[u8])> = vec![
            ("trace_id", b"4bf92f3577b34da6a3ce929d0e0e4736"),
            ("span_id", b"00f067aa0ba902b7"),
            ("tenant", b"a"),
            ("traceparent", parent.as_bytes()),
        ];
        assert_eq!(texts(&headers).split_off(3), expected);
        let refused = event.refused(Refusal::new(Error::new(ErrorKind::RecordRefused, "no")));
        assert_eq!(record_place(&refused), (None, None));
        let headers = record_headers(&refused);
        assert!(texts(&headers).contains(&("dead_letter_record_time_ms", b"7")));
    }

    #[test]
    fn what_is_kept_in_the_table_has_a_small_record() {
        let large = OutboxEvent {
            id: format!("a\0{}", "é".repeat(1_000)),
            aggregate_type: "user".into(),
            aggregate_id: "ü".repeat(1_000),
            trace_info: Some(TraceInfo { trace_id: "t".repeat(1_000), ..Default::default() }),
            ..Default::default()
        };
        let event = Event::parse(large.encode_to_vec().into(), Lsn::ZERO).expect("well formed");
        assert_eq!(record_key(&event), large.aggregate_id.as_bytes());
        let kept = event.refused(Refusal::new(Error::new(ErrorKind::RecordTooLarge, "too large")));
        assert_eq!((record_key(&kept).len(), record_value(&kept)), (KEPT_TEXT_MAX, Some(&b""[..])));
        let headers = record_headers(&kept);
        let headers = texts(&headers);
        assert!(headers.iter().all(|(key, _)| *key != "trace_id"));
        let id = std::str::from_utf8(headers[0].1).expect("cut between characters");
        assert!(id.starts_with("a\u{fffd}é") && id.len() < KEPT_TEXT_MAX + 3, "{id}");
    }
}
