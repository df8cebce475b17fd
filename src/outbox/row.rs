//! Turns one row of an outbox table into an event, or into the reason why it is not one.

use std::sync::Arc;

use bytes::Bytes;
use factlib_postgres::pgoutput::{Tuple, Value};
use prost::Message;

use super::{
    mapping::{ColumnRef, Mapping},
    value::{UnusableTime, content, hex, json_object_texts, oid, time_ns},
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{OutboxPreset, OutboxTable},
    event::RowRecord,
    proto::OutboxEvent,
};

/// Everything that is needed to read a table's rows.
pub(super) struct RowContext<'a> {
    pub table: &'a OutboxTable,
    pub topic_prefix: Option<&'a Arc<str>>,
    pub mapping: &'a Mapping,
    /// Commit time of the transaction, for rows without a usable time.
    pub commit_time_ns: i64,
    /// The buffer of which the row's values are slices.
    pub frames: &'a Bytes,
}

/// A row's event.
pub(super) struct RowEvent {
    pub event: Event,
    /// The row's time and why it can't be used, if the commit time replaces it.
    pub unusable_time: Option<String>,
}

impl RowContext<'_> {
    /// Turns a row into an event.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] with the reason why the row is not an event.
    pub fn event(&self, row: Tuple<'_>, lsn: Lsn) -> Result<RowEvent> {
        let values: Vec<Value<'_>> = row.values().collect();
        self.event_from_values(&values, lsn)
    }

    /// Does the same for a list of values.
    pub fn event_from_values(&self, values: &[Value<'_>], lsn: Lsn) -> Result<RowEvent> {
        let row = Row { values, frames: self.frames };
        let mapping = self.mapping;
        let mut event = OutboxEvent {
            id: row.id(mapping.id, "id")?,
            aggregate_type: row.required(mapping.aggregate_type, "aggregate type")?,
            aggregate_id: row.id(mapping.aggregate_id, "aggregate id")?,
            event_type: match mapping.event_type {
                Some(at) => row.text(at, "event type")?.unwrap_or_default(),
                None => String::new(),
            },
            ..Default::default()
        };
        for (text, role) in [(&event.id, "id"), (&event.aggregate_type, "aggregate type")] {
            if text.is_empty() {
                return Err(refused(format!("its {role} is empty")));
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
                    let metadata = json_object_texts(&json);
                    event.metadata = metadata
                        .ok_or_else(|| refused("its metadata is not a JSON object".into()))?;
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

    /// Parses the row's time, or says why it can't be used.
    fn time(&self, at: ColumnRef, text: &str) -> Result<i64, String> {
        let unit = self.table.created_at_unit;
        let ns = time_ns(at.type_oid, unit, text, self.commit_time_ns).map_err(|why| match why {
            UnusableTime::OutOfRange => "it is not in the range from 1677 to 2262".to_owned(),
            UnusableTime::OtherUnit(other) => format!(
                "it is far off in {}, but not in {other}: set outbox.created_at_unit = \"{other}\"",
                unit.name(),
                other = other.name()
            ),
        })?;
        // Only the preset debezium uses it as the record's timestamp.
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
    fn required(&self, at: ColumnRef, role: &str) -> Result<String> {
        self.text(at, role)?.ok_or_else(|| refused(format!("its {role} is null")))
    }

    /// Reads an id as text; a `bytea` as its hexadecimal digits.
    fn id(&self, at: ColumnRef, role: &str) -> Result<String> {
        if at.type_oid != oid::BYTEA {
            return self.required(at, role);
        }
        let bytes = self.content(at, role)?;
        let bytes = bytes.ok_or_else(|| refused(format!("its {role} is null")))?;
        Ok(if bytes.is_empty() { String::new() } else { hex(&bytes) })
    }

    fn text(&self, at: ColumnRef, role: &str) -> Result<Option<String>> {
        let Some(bytes) = self.content(at, role)? else { return Ok(None) };
        let text = String::from_utf8(bytes.into());
        text.map(Some)
            .map_err(|error| refused(format!("its {role} is not valid text")).caused_by(error))
    }

    /// None for NULL.
    fn content(&self, at: ColumnRef, role: &str) -> Result<Option<Bytes>> {
        match self.values.get(at.index) {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => {
                let read = content(at.type_oid, self.frames.slice_ref(text));
                read.map(Some).ok_or_else(|| refused(format!("its {role} can't be read")))
            }
            // Binary was not asked for: the decoder marks text that can't be converted to UTF-8 so.
            Some(Value::Binary(_)) => {
                let why = "has bytes for which the database's encoding has no character";
                Err(refused(format!("its {role} {why}")))
            }
            // An inserted row never lacks a column.
            Some(Value::UnchangedToast) | None => Err(refused(format!("its {role} is missing"))),
        }
    }
}

pub(super) fn refused(why: String) -> Error {
    Error::new(ErrorKind::RecordRefused, why)
}
