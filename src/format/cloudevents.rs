//! CloudEvents 1.0 in Kafka: binary and structured mode.
//!
//! After the [specification] and its bindings for [Kafka] and [JSON]. The SDK is not used:
//! its Kafka part is bound to another release of rdkafka than ours, and the rest of it (a
//! date, a URL and an error library for attributes that are texts here) is more than this
//! page.
//!
//! | attribute | of the event |
//! | --- | --- |
//! | `id` | its id, or its position in the WAL where it has none |
//! | `source` | `/{prefix}/{aggregate_type}` |
//! | `type` | its type, or its aggregate type where it has none |
//! | `subject` | its aggregate id |
//! | `time` | when it was created |
//! | `datacontenttype` | its metadata `content-type`; else JSON where the payload is JSON |
//! | `traceparent` | its trace, where that is one by W3C |
//! | extensions | metadata whose key can be one: `a` to `z` and digits |
//!
//! Metadata with other keys is headers `metadata.{key}`, in both modes.
//!
//! [specification]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
//! [Kafka]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
//! [JSON]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, value::RawValue};

use super::{FormatInput, content, json::to_json, time};
use crate::{Result, proto::OutboxEvent, record::Record};

/// What may stand in a segment of a path as it is, RFC 3986's unreserved characters.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Names that metadata can't have: attributes of the specification, and `data`.
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

/// The payload as it is; attributes are headers.
pub(super) fn binary(input: FormatInput<'_>) -> Record {
    let FormatInput { event, envelope, .. } = input;
    let tombstone = event.row().is_some_and(|row| row.is_tombstone);
    let value = (!tombstone).then(|| envelope.payload.clone());
    let mut record = Record { value, ..Default::default() };
    for (name, text) in attributes(input) {
        // The binding gives this one the name that Kafka's users know.
        match name.as_str() {
            "datacontenttype" => record.add_header("content-type", text),
            _ => record.add_header(format!("ce_{name}"), text),
        }
    }
    other_metadata(envelope, &mut record);
    record
}

/// All of it as one JSON object.
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
    // Raw, so that numbers and the order of keys stay as they were written.
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

/// Metadata that can't be an attribute; what became `datacontenttype` is said already.
fn other_metadata(envelope: &OutboxEvent, record: &mut Record) {
    for (key, value) in &envelope.metadata {
        if !is_extension(key) && !content::METADATA.contains(&key.as_str()) {
            record.add_header(format!("metadata.{key}"), value.clone());
        }
    }
}

/// A name that the specification allows for an extension.
fn is_extension(key: &str) -> bool {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    !key.is_empty() && key.bytes().all(legal) && !TAKEN.contains(&key)
}
