//! `raw`: the payload as value, the event's other fields as headers.

use super::{FormatInput, event_headers};
use crate::record::Record;

/// Makes the record. Headers are those of every event, then `aggregate_type`, `aggregate_id`,
/// `created_at` (Unix nanoseconds) and one `metadata.{key}` for each entry.
pub(super) fn record(input: FormatInput<'_>) -> Record {
    let FormatInput { event, envelope, .. } = input;
    let tombstone = event.row().is_some_and(|row| row.is_tombstone);
    let mut record = Record {
        value: (!tombstone).then(|| envelope.payload.clone()),
        headers: event_headers(event),
        ..Default::default()
    };
    record.add_header("aggregate_type", event.aggregate_type().to_owned());
    record.add_header("aggregate_id", event.aggregate_id().to_owned());
    record.add_header("created_at", envelope.created_at.to_string());
    for (key, value) in &envelope.metadata {
        record.add_header(format!("metadata.{key}"), value.clone());
    }
    record
}
