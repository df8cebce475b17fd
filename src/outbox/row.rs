//! One row of an outbox table: an event, or what is wrong with it.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::{
    mapping::{At, Mapping},
    value::{content, texts, time_ns},
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::OutboxPreset,
    event::RowRecord,
    postgres::pgoutput::{Tuple, Value},
    proto::OutboxEvent,
};

/// What the rows of a table have in common.
pub(super) struct Rows<'a> {
    pub preset: OutboxPreset,
    pub topic_prefix: Option<&'a Arc<str>>,
    pub mapping: &'a Mapping,
    /// Of the transaction: what a row without a time of its own gets.
    pub commit_time_ns: i64,
    /// What the row's texts are slices of.
    pub frames: &'a Bytes,
}

impl Rows<'_> {
    /// The event that a row is.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why it is none.
    pub fn event(&self, row: Tuple<'_>, lsn: Lsn) -> Result<Event> {
        let values: Vec<Value<'_>> = row.values().collect();
        self.event_of(&values, lsn)
    }

    /// The same, for the values of its columns.
    pub fn event_of(&self, values: &[Value<'_>], lsn: Lsn) -> Result<Event> {
        let row = Row { values, frames: self.frames };
        let mapping = self.mapping;
        let mut event = OutboxEvent {
            id: row.needed(mapping.id, "id")?,
            aggregate_type: row.needed(mapping.aggregate_type, "aggregate type")?,
            aggregate_id: row.needed(mapping.aggregate_id, "aggregate id")?,
            event_type: match mapping.event_type {
                Some(at) => row.text(at, "event type")?.unwrap_or_default(),
                None => String::new(),
            },
            ..Default::default()
        };
        for (text, what) in [(&event.id, "id"), (&event.aggregate_type, "aggregate type")] {
            if text.is_empty() {
                return Err(refused(format!("its {what} is empty")));
            }
        }
        let time = match mapping.created_at {
            Some(at) => row.time(at)?,
            None => None,
        };
        event.created_at = time.unwrap_or(self.commit_time_ns);
        let headers = mapping.headers.iter();
        let headers = headers.map(|(at, name)| Ok((name.clone(), row.content(*at, name)?)));
        let mut record = RowRecord {
            topic_prefix: self.topic_prefix.cloned(),
            headers: headers.collect::<Result<_>>()?,
            payload_is_value: false,
            is_tombstone: false,
            timestamp_ms: None,
        };
        let payload = row.content(mapping.payload, "payload")?;
        let raw = match self.preset {
            OutboxPreset::Debezium => {
                record.payload_is_value = true;
                record.is_tombstone = payload.is_none();
                record.timestamp_ms = time.map(|ns| ns.div_euclid(1_000_000));
                payload.unwrap_or_default()
            }
            OutboxPreset::Factlib => {
                event.payload = payload.unwrap_or_default();
                if let Some(at) = mapping.metadata
                    && let Some(json) = row.content(at, "metadata")?
                {
                    let metadata = texts(&json);
                    event.metadata =
                        metadata.ok_or_else(|| refused("its metadata is no JSON object".into()))?;
                }
                for (at, name) in &mapping.envelope {
                    if let Some(text) = row.text(*at, name)? {
                        event.metadata.insert(name.to_string(), text);
                    }
                }
                event.encode_to_vec().into()
            }
        };
        Event::from_row(event, raw, record, lsn)
    }
}

/// A row's values.
struct Row<'a> {
    values: &'a [Value<'a>],
    frames: &'a Bytes,
}

impl Row<'_> {
    fn needed(&self, at: At, what: &str) -> Result<String> {
        self.text(at, what)?.ok_or_else(|| refused(format!("its {what} is null")))
    }

    fn time(&self, at: At) -> Result<Option<i64>> {
        let Some(text) = self.text(at, "time")? else { return Ok(None) };
        let time = time_ns(at.type_oid, &text);
        time.map(Some).ok_or_else(|| refused(format!("its time {text:?} can't be read")))
    }

    fn text(&self, at: At, what: &str) -> Result<Option<String>> {
        let Some(bytes) = self.content(at, what)? else { return Ok(None) };
        let text = String::from_utf8(bytes.into());
        text.map(Some).map_err(|error| refused(format!("its {what} is no text")).caused_by(error))
    }

    /// None for NULL.
    fn content(&self, at: At, what: &str) -> Result<Option<Bytes>> {
        match self.values.get(at.index) {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => {
                let read = content(at.type_oid, self.frames.slice_ref(text));
                read.map(Some).ok_or_else(|| refused(format!("its {what} can't be read")))
            }
            // An inserted row has all of its columns, and as text: nothing else was asked for.
            Some(Value::UnchangedToast | Value::Binary(_)) | None => {
                Err(refused(format!("its {what} is not there")))
            }
        }
    }
}

/// A row as JSON, for a dead letter: what an operator can read, and insert again.
pub(super) fn as_json(columns: &[(String, u32)], row: Tuple<'_>) -> Bytes {
    let value = |value| match value {
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        _ => serde_json::Value::Null,
    };
    let names = columns.iter().map(|(name, _)| name.clone());
    let object: serde_json::Map<_, _> = names.zip(row.values().map(value)).collect();
    serde_json::Value::Object(object).to_string().into()
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::RecordRefused, why)
}
