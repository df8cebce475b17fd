use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::{Lsn, event::RowRecord, proto::TraceInfo};

/// 2018-04-05T03:56:24Z, as in the examples of CloudEvents.
const TIME_NS: i64 = 1_522_900_584_000_000_000;

fn envelope(payload: &'static [u8], metadata: &[(&str, &str)]) -> OutboxEvent {
    OutboxEvent {
        id: "1234-1234-1234".into(),
        aggregate_type: "subcontext".into(),
        aggregate_id: "k/1".into(),
        event_type: "com.example.someevent".into(),
        payload: payload.into(),
        created_at: TIME_NS,
        metadata: metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        trace_info: None,
    }
}

fn event(envelope: &OutboxEvent) -> Event {
    Event::parse(envelope.encode_to_vec().into(), Lsn::new(0x16_0000_0001)).expect("an event")
}

fn rendered(format: Format, envelope: &OutboxEvent) -> Record {
    let input = FormatInput { event: &event(envelope), envelope, prefix: "mycontext" };
    render(format, input).expect("a record")
}

fn headers(record: &Record) -> Vec<(&str, &str)> {
    let text = |value: &'_ Option<Bytes>| value.clone().map(Vec::from).unwrap_or_default();
    let leaked = |value| &*String::from_utf8(text(value)).expect("text").leak();
    record.headers.iter().map(|(key, value)| (&**key, leaked(value))).collect()
}

fn json(record: &Record) -> serde_json::Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

#[test]
fn raw_is_the_payload_and_headers_have_the_rest() {
    let record =
        rendered(Format::Raw, &envelope(b"\0\xff", &[("tenant", "acme"), ("n\0l", "never")]));
    assert_eq!(record.value.as_deref(), Some(&b"\0\xff"[..]));
    assert_eq!(&record.key[..], b"k/1");
    let expected = [
        ("event_id", "1234-1234-1234"),
        ("event_type", "com.example.someevent"),
        ("LSN", "16/1"),
        ("aggregate_type", "subcontext"),
        ("aggregate_id", "k/1"),
        ("created_at", "1522900584000000000"),
        ("metadata.tenant", "acme"),
    ];
    assert_eq!(headers(&record), expected);
}

#[test]
fn a_raw_payload_is_a_slice_of_the_event() {
    let envelope = envelope(b"some payload", &[]);
    let event = event(&envelope);
    let decoded = event.decode().expect("an envelope");
    let input = FormatInput { event: &event, envelope: &decoded, prefix: "p" };
    let value = render(Format::Raw, input).expect("a record").value.expect("a value");
    assert!(event.raw().as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn json_has_every_field_and_the_payload_as_it_was_written() {
    let mut envelope = envelope(br#"{"b":1.10,"a":12345678901234567890}"#, &[("tenant", "ü")]);
    envelope.trace_info = Some(TraceInfo {
        trace_id: "t".into(),
        span_id: "s".into(),
        metadata: [("m".to_owned(), "n".to_owned())].into(),
    });
    let record = rendered(Format::Json, &envelope);
    let expected = r#"{"id":"1234-1234-1234","aggregate_type":"subcontext","aggregate_id":"k/1","event_type":"com.example.someevent","payload":{"b":1.10,"a":12345678901234567890},"created_at":"2018-04-05T03:56:24Z","metadata":{"tenant":"ü"},"trace_id":"t","span_id":"s","trace_metadata":{"m":"n"}}"#;
    assert_eq!(record.value.as_deref(), Some(expected.as_bytes()));
    assert_eq!(headers(&record).last(), Some(&("content-type", "application/json")));
    assert!(headers(&record).contains(&("trace_id", "t")));
}

#[test]
fn a_payload_is_json_where_it_parses_and_nobody_says_otherwise() {
    for (payload, content_type, field, value) in [
        (&b"[1]"[..], "", "payload", json!([1])),
        (b"[1]", "application/vnd.a+json; charset=utf-8", "payload", json!([1])),
        (b"[1]", "text/JSON", "payload", json!([1])),
        (b"[1]", "text/plain", "payload_base64", json!("WzFd")),
        (b"[1", "application/json", "payload_base64", json!("WzE=")),
        (b"\xff", "", "payload_base64", json!("/w==")),
        (b"", "", "payload", serde_json::Value::Null),
        (b"", "", "payload_base64", serde_json::Value::Null),
    ] {
        let object =
            json(&rendered(Format::Json, &envelope(payload, &[("content-type", content_type)])));
        assert_eq!(object[field], value, "{content_type} {object}");
    }
}

/// The example of the Kafka binding, section 3.2.4.
#[test]
fn cloudevents_binary_is_the_example_of_the_binding() {
    let record =
        rendered(Format::CloudEvents, &envelope(b"avro", &[("content_type", "application/avro")]));
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1234-1234-1234"),
        ("ce_source", "/mycontext/subcontext"),
        ("ce_type", "com.example.someevent"),
        ("ce_subject", "k/1"),
        ("ce_time", "2018-04-05T03:56:24Z"),
        ("content-type", "application/avro"),
    ];
    assert_eq!(headers(&record), expected);
    assert_eq!(record.value.as_deref(), Some(&b"avro"[..]));
}

/// The example of the Kafka binding, section 3.3.3, with the data of the JSON format's.
#[test]
fn cloudevents_structured_is_the_example_of_the_binding() {
    let payload = br#"{"appinfoA":"abc","appinfoB":123,"appinfoC":true}"#;
    let metadata = [("comexampleextension1", "value"), ("Not-One", "x"), ("id", "taken")];
    let record = rendered(Format::CloudEventsStructured, &envelope(payload, &metadata));
    let expected = json!({
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext/subcontext",
        "id": "1234-1234-1234",
        "time": "2018-04-05T03:56:24Z",
        "subject": "k/1",
        "comexampleextension1": "value",
        "datacontenttype": "application/json",
        "data": {"appinfoA": "abc", "appinfoB": 123, "appinfoC": true},
    });
    assert_eq!(json(&record), expected);
    let content_type = ("content-type", "application/cloudevents+json; charset=UTF-8");
    let expected = [content_type, ("metadata.Not-One", "x"), ("metadata.id", "taken")];
    assert_eq!(headers(&record), expected);
}

#[test]
fn cloudevents_have_what_the_specification_requires_of_any_event() {
    let bare = OutboxEvent { aggregate_type: "größe/ 1".into(), ..Default::default() };
    let record = rendered(Format::CloudEventsStructured, &bare);
    let expected = json!({
        "specversion": "1.0",
        "id": "16/1",
        "source": "/mycontext/gr%C3%B6%C3%9Fe%2F%201",
        "type": "größe/ 1",
    });
    assert_eq!(json(&record), expected);
    let record = rendered(Format::CloudEventsStructured, &envelope(b"\xff", &[]));
    assert_eq!(json(&record)["data_base64"], "/w==");
    assert_eq!(json(&record)["datacontenttype"], "application/octet-stream");
}

#[test]
fn a_trace_is_a_traceparent_where_it_can_be_one() {
    let mut envelope = envelope(b"", &[]);
    for (trace, span, parent) in [
        ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", true),
        ("4BF92F3577B34DA6A3CE929D0E0E4736", "00f067aa0ba902b7", false),
        ("00000000000000000000000000000000", "00f067aa0ba902b7", false),
        ("t", "s", false),
    ] {
        let (trace_id, span_id) = (trace.into(), span.into());
        envelope.trace_info = Some(TraceInfo { trace_id, span_id, ..Default::default() });
        let record = rendered(Format::CloudEvents, &envelope);
        let text = format!("00-{trace}-{span}-01");
        let there = headers(&record).contains(&("ce_traceparent", text.as_str()));
        assert_eq!(there, parent, "{trace}");
    }
}

#[test]
fn a_tables_own_headers_come_last_and_a_null_payload_has_no_value() {
    let envelope = envelope(b"", &[]);
    let row = RowRecord {
        topic_prefix: None,
        headers: vec![("tenant".into(), Some("acme".into())), ("none".into(), None)],
        payload_is_value: true,
        is_tombstone: true,
        ..RowRecord::default()
    };
    let event = Event::from_row(envelope.clone(), Bytes::new(), row, Lsn::ZERO).expect("a row");
    for format in [Format::Raw, Format::CloudEvents] {
        let input = FormatInput { event: &event, envelope: &envelope, prefix: "p" };
        let record = render(format, input).expect("a record");
        assert_eq!(record.value, None);
        assert!(headers(&record).ends_with(&[("tenant", "acme"), ("none", "")]));
    }
    // With the format named, what came as a payload alone is an envelope.
    let input = FormatInput { event: &event, envelope: &envelope, prefix: "p" };
    let record = render(Format::Protobuf, input).expect("a record");
    assert_eq!(record.value, Some(envelope.encode_to_vec().into()));
}

/// The value in the format `json`, for the test of its schema.
pub(crate) fn envelope_as_json(envelope: &OutboxEvent) -> serde_json::Value {
    json(&rendered(Format::Json, envelope))
}
