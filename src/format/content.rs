//! Finds a payload's content type: as its emitter declares it, or else by its bytes.

use serde_json::value::RawValue;

use crate::proto::OutboxEvent;

/// Metadata keys with which an emitter declares the content type.
pub(super) const METADATA: [&str; 2] = ["content-type", "content_type"];

/// The content type that the emitter declares, if any.
pub(super) fn declared_type(envelope: &OutboxEvent) -> Option<&str> {
    let declared = METADATA.iter().find_map(|key| envelope.metadata.get(*key));
    declared.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// The payload's content type.
pub(super) fn content_type(envelope: &OutboxEvent) -> &str {
    match declared_type(envelope) {
        Some(declared) => declared,
        None if as_json(envelope).is_some() => "application/json",
        None => "application/octet-stream",
    }
}

/// The payload as JSON exactly as it was written; none if it is not JSON or its emitter declares
/// another content type.
pub(super) fn as_json(envelope: &OutboxEvent) -> Option<&RawValue> {
    if declared_type(envelope).is_some_and(|declared| !is_json(declared)) {
        return None;
    }
    serde_json::from_slice(&envelope.payload).ok()
}

/// True for JSON content types: `application/json`, `text/json`,
/// `application/geo+json; charset=utf-8`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    essence.rsplit_once('/').is_some_and(|(_, kind)| kind == "json" || kind.ends_with("+json"))
}
