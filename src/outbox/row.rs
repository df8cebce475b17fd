//! One row of an outbox table: an event, or what is wrong with it.

use std::sync::Arc;

use bytes::Bytes;
use factlib_postgres::pgoutput::{Tuple, Value};
use prost::Message;

use super::{
    mapping::{At, Mapping},
    value::{Unfit, content, hex, oid, texts, time_ns},
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{OutboxPreset, OutboxTable},
    event::RowRecord,
    proto::OutboxEvent,
};

/// What the rows of a table have in common.
pub(super) struct Rows<'a> {
    pub table: &'a OutboxTable,
    pub topic_prefix: Option<&'a Arc<str>>,
    pub mapping: &'a Mapping,
    /// Commit time of the transaction, for rows without a usable time.
    pub commit_time_ns: i64,
    /// What the row's texts are slices of.
    pub frames: &'a Bytes,
}

/// An event, and what there is to say about it.
pub(super) struct RowEvent {
    pub event: Event,
    /// The reason why the commit's time replaces the row's, with the row's value.
    pub unusable_time: Option<String>,
}

impl Rows<'_> {
    /// The event that a row is.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why it is none.
    pub fn event(&self, row: Tuple<'_>, lsn: Lsn) -> Result<RowEvent> {
        let values: Vec<Value<'_>> = row.values().collect();
        self.event_of(&values, lsn)
    }

    /// The same, for the values of its columns.
    pub fn event_of(&self, values: &[Value<'_>], lsn: Lsn) -> Result<RowEvent> {
        let row = Row { values, frames: self.frames };
        let mapping = self.mapping;
        let mut event = OutboxEvent {
            id: row.id(mapping.id, "id")?,
            aggregate_type: row.needed(mapping.aggregate_type, "aggregate type")?,
            aggregate_id: row.id(mapping.aggregate_id, "aggregate id")?,
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
        let mut unusable_time = None;
        let time = match mapping.created_at {
            Some(at) => row.text(at, "time")?.and_then(|text| {
                let time = self.time(at, &text);
                time.map_err(|why| unusable_time = Some(format!("{text}: {why}"))).ok()
            }),
            None => None,
        };
        event.created_at = time.unwrap_or(self.commit_time_ns);
        let headers = mapping.headers.iter();
        let headers = headers.map(|(at, name)| Ok(((&**name).into(), row.content(*at, name)?)));
        let mut record = RowRecord {
            topic_prefix: self.topic_prefix.cloned(),
            headers: headers.collect::<Result<_>>()?,
            key: match mapping.aggregate_id.type_oid {
                oid::BYTEA => row.content(mapping.aggregate_id, "aggregate id")?,
                _ => None,
            },
            ..RowRecord::default()
        };
        let payload = row.content(mapping.payload, "payload")?;
        let raw = match self.table.preset {
            OutboxPreset::Debezium => {
                record.payload_is_value = true;
                record.is_tombstone = payload.is_none();
                let is_given = time.is_some() || unusable_time.is_some();
                record.timestamp_ms = is_given.then(|| event.created_at.div_euclid(1_000_000));
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
        let event = Event::from_row(event, raw, record, lsn)?;
        Ok(RowEvent { event, unusable_time })
    }

    /// The row's time, or why it can't be used.
    fn time(&self, at: At, text: &str) -> Result<i64, String> {
        let unit = self.table.created_at_unit;
        let ns = time_ns(at.type_oid, unit, text, self.commit_time_ns).map_err(|why| match why {
            Unfit::OutOfRange => "it is not in the range from 1677 to 2262".to_owned(),
            Unfit::OtherUnit(other) => format!(
                "it is far off in {}, but not in {other}: set outbox.created_at_unit = \"{other}\"",
                unit.name(),
                other = other.name()
            ),
        })?;
        // Only there it is the time of the record.
        match self.table.preset {
            OutboxPreset::Debezium if ns < 1_000_000 => {
                Err("a record can't have a time before 1970".to_owned())
            }
            _ => Ok(ns),
        }
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

    /// A text that tells one from another: of a `bytea`, its digits.
    fn id(&self, at: At, what: &str) -> Result<String> {
        if at.type_oid != oid::BYTEA {
            return self.needed(at, what);
        }
        let bytes = self.content(at, what)?;
        let bytes = bytes.ok_or_else(|| refused(format!("its {what} is null")))?;
        Ok(if bytes.is_empty() { String::new() } else { hex(&bytes) })
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
            // Nothing was asked for in binary: it is how a text comes that is none in UTF-8.
            Some(Value::Binary(_)) => {
                let why = "has bytes for which the database's encoding has no character";
                Err(refused(format!("its {what} {why}")))
            }
            // An inserted row has all of its columns.
            Some(Value::UnchangedToast) | None => Err(refused(format!("its {what} is not there"))),
        }
    }
}

pub(super) fn refused(why: String) -> Error {
    Error::new(ErrorKind::RecordRefused, why)
}
