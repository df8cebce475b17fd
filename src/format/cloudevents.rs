//! `cloudevents` and `cloudevents-structured`: an event as a CloudEvents 1.0 record, in binary or
//! structured mode.
//!
//! It follows the [specification] and its bindings for [Kafka] and [JSON]. We do not use the SDK:
//! its Kafka part is for librdkafka, and the rest (date, URL and
//! error libraries for attributes that are plain texts here) is more code than this file.
//!
//! | attribute | value |
//! | --- | --- |
//! | `id` | the event's id, or its position in the WAL if it has none |
//! | `source` | `/{prefix}/{aggregate_type}` |
//! | `type` | the event type, or the aggregate type if it has none |
//! | `subject` | the aggregate id |
//! | `time` | the time of creation |
//! | `datacontenttype` | metadata `content-type`; otherwise JSON if the payload is JSON |
//! | `traceparent` | the trace, if its ids are valid by W3C Trace Context |
//! | extensions | metadata whose key is a legal attribute name: `a` to `z` and digits |
//!
//! Metadata with other keys becomes headers `metadata.{key}`, in both modes.
//!
//! [specification]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
//! [Kafka]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
//! [JSON]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, value::RawValue};

use super::{FormatInput, content, json::to_json, time};
use crate::{Result, proto::OutboxEvent, record::Record};

/// Characters to escape in a path segment: all but RFC 3986's unreserved ones.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Attribute names that metadata may not use: those of the specification, and `data`.
const TAKEN: [&str; 10] = [
    "id",
    "source",
    "specversion",
    "type",
    "datacontenttype",
    "dataschema",
    "subject",
    "time",
    "data",
    "traceparent",
];

/// Makes a record in binary mode: the payload as value, the attributes as headers.
pub(super) fn binary(input: FormatInput<'_>) -> Record {
    let FormatInput { event, envelope, .. } = input;
    let tombstone = event.row().is_some_and(|row| row.is_tombstone);
    let value = (!tombstone).then(|| envelope.payload.clone());
    let mut record = Record { value, ..Default::default() };
    for (name, text) in attributes(input) {
        // The Kafka binding maps this attribute to the usual header.
        match name.as_str() {
            "datacontenttype" => record.add_header("content-type", text),
            _ => record.add_header(format!("ce_{name}"), text),
        }
    }
    other_metadata(envelope, &mut record);
    record
}

/// Makes a record in structured mode: attributes and payload as one JSON object.
pub(super) fn structured(input: FormatInput<'_>) -> Result<Record> {
    let envelope = input.envelope;
    let mut attributes = attributes(input);
    let payload = content::as_json(envelope);
    if envelope.payload.is_empty() {
        attributes.retain(|(name, _)| name != "datacontenttype");
    }
    let texts = attributes.into_iter().map(|(name, text)| (name, Value::String(text)));
    let mut object: Map<String, Value> = texts.collect();
    if payload.is_none() && !envelope.payload.is_empty() {
        let base64 = STANDARD.encode(&envelope.payload);
        object.insert("data_base64".into(), base64.into());
    }
    let object = Structured { attributes: object, data: payload };
    let mut record = Record { value: Some(to_json(&object)?), ..Default::default() };
    record.add_header("content-type", "application/cloudevents+json; charset=UTF-8");
    other_metadata(envelope, &mut record);
    Ok(record)
}

#[derive(serde::Serialize)]
struct Structured<'a> {
    #[serde(flatten)]
    attributes: Map<String, Value>,
    // Raw JSON keeps numbers and the order of keys as they were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

fn attributes(input: FormatInput<'_>) -> Vec<(String, String)> {
    let FormatInput { event, envelope, prefix } = input;
    let or = |text: &str, other: &dyn Fn() -> String| match text {
        "" => other(),
        text => text.to_owned(),
    };
    let kind = event.aggregate_type();
    let in_path = |text| utf8_percent_encode(text, IN_PATH);
    let mut all = vec![
        ("specversion".to_owned(), "1.0".to_owned()),
        ("id".into(), or(event.id(), &|| event.lsn().to_string())),
        ("source".into(), format!("/{}/{}", in_path(prefix), in_path(kind))),
        ("type".into(), or(event.event_type(), &|| kind.to_owned())),
    ];
    if !event.aggregate_id().is_empty() {
        all.push(("subject".into(), event.aggregate_id().to_owned()));
    }
    all.extend(time(envelope.created_at).map(|time| ("time".into(), time)));
    all.push(("datacontenttype".into(), content::content_type(envelope).to_owned()));
    if let Some(trace) = event.trace() {
        let hex = |text: &str, length| {
            let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            text.len() == length && text.bytes().all(digit) && text.bytes().any(|b| b != b'0')
        };
        if hex(&trace.trace_id, 32) && hex(&trace.span_id, 16) {
            let text = format!("00-{}-{}-01", trace.trace_id, trace.span_id);
            all.push(("traceparent".into(), text));
        }
    }
    let extensions = envelope.metadata.iter().filter(|(key, _)| is_extension(key));
    all.extend(extensions.map(|(key, value)| (key.clone(), value.clone())));
    all
}

/// Adds metadata that can't be an attribute as headers, except the one in `datacontenttype`.
fn other_metadata(envelope: &OutboxEvent, record: &mut Record) {
    for (key, value) in &envelope.metadata {
        if !is_extension(key) && !content::METADATA.contains(&key.as_str()) {
            record.add_header(format!("metadata.{key}"), value.clone());
        }
    }
}

/// True for a name that the specification allows for an extension attribute.
fn is_extension(key: &str) -> bool {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    !key.is_empty() && key.bytes().all(legal) && !TAKEN.contains(&key)
}
