//! `json`: the `OutboxEvent` as a JSON object.
//!
//! The fields are those that `factlib emit --stdin` reads. `payload` is any JSON; a payload that is
//! not JSON becomes `payload_base64` instead.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{FormatInput, content, event_headers, time};
use crate::{Error, ErrorKind, Result, proto::TraceInfo, record::Record};

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    aggregate_type: &'a str,
    aggregate_id: &'a str,
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// RFC 3339, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    trace: Option<Trace<'a>>,
}

#[derive(Serialize)]
struct Trace<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    trace_metadata: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a TraceInfo> for Trace<'a> {
    fn from(trace: &'a TraceInfo) -> Self {
        let TraceInfo { trace_id, span_id, metadata } = trace;
        Trace { trace_id, span_id, trace_metadata: metadata }
    }
}

pub(super) fn record(input: FormatInput<'_>) -> Result<Record> {
    let mut record = without_content_type(input)?;
    record.add_header("content-type", "application/json");
    Ok(record)
}

/// Makes the record without a content type: behind a schema id, the value is no longer plain JSON.
pub(super) fn without_content_type(input: FormatInput<'_>) -> Result<Record> {
    let FormatInput { event, envelope, .. } = input;
    let payload = content::as_json(envelope);
    let base64 = payload.is_none() && !envelope.payload.is_empty();
    let object = Envelope {
        id: &envelope.id,
        aggregate_type: &envelope.aggregate_type,
        aggregate_id: &envelope.aggregate_id,
        event_type: &envelope.event_type,
        payload,
        payload_base64: base64.then(|| STANDARD.encode(&envelope.payload)),
        created_at: time(envelope.created_at),
        metadata: &envelope.metadata,
        trace: event.trace().map(Trace::from),
    };
    let mut record = Record { headers: event_headers(event), ..Default::default() };
    record.value = Some(to_json(&object)?);
    Ok(record)
}

/// Serializes an object as JSON.
pub(super) fn to_json(object: &impl Serialize) -> Result<bytes::Bytes> {
    let json = serde_json::to_vec(object).map_err(|error| {
        let what = "the event can't be written as JSON";
        Error::new(ErrorKind::RecordRefused, what).caused_by(error)
    })?;
    Ok(json.into())
}
