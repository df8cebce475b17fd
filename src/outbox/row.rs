//! Turns one row of an outbox table into an event, or into the reason why it is not one.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use factlib_postgres::pgoutput::{Tuple, Value};
use smallvec::SmallVec;

use super::{
    mapping::{ColumnRef, Mapping},
    value::{
        UnusableTime, content, content_of_binary, hex, json_object_texts, oid, time_ns,
        time_ns_of_binary,
    },
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{OutboxPreset, OutboxTable},
    event::{RowFields, RowRecord},
    java_properties,
    record::is_legal_header,
};

/// Columns of most tables.
const USUAL_COLUMNS: usize = 16;

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
    /// Turns a row into an event. If its value is made of the row, it is written to `made_values`.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] with the reason why the row is not an event.
    pub fn event(&self, row: Tuple<'_>, lsn: Lsn, made_values: &mut BytesMut) -> Result<RowEvent> {
        let values: SmallVec<[_; USUAL_COLUMNS]> = row.values().collect();
        self.event_from_values(&values, lsn, made_values)
    }

    /// Does the same for a list of values.
    pub fn event_from_values(
        &self,
        values: &[Value<'_>],
        lsn: Lsn,
        made_values: &mut BytesMut,
    ) -> Result<RowEvent> {
        let row = Row { values, frames: self.frames };
        let mapping = self.mapping;
        let mut event = RowFields {
            id: row.id(mapping.id, "id")?,
            aggregate_type: row.required(mapping.aggregate_type, "aggregate type")?,
            aggregate_id: row.id(mapping.aggregate_id, "aggregate id")?,
            event_type: match mapping.event_type {
                Some(at) => row.text(at, "event type")?.unwrap_or_default(),
                None => ByteString::new(),
            },
            created_at_ns: self.commit_time_ns,
        };
        for (text, role) in [(&event.id, "id"), (&event.aggregate_type, "aggregate type")] {
            if text.is_empty() {
                return Err(refused(format!("its {role} is empty")));
            }
        }
        let time = match mapping.created_at {
            Some(at) => self.time(&row, at)?,
            None => None,
        };
        let (time, unusable_time) = match time {
            Some(Ok(ns)) => (Some(ns), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        event.created_at_ns = time.unwrap_or(self.commit_time_ns);
        let mut record = RowRecord {
            topic_prefix: self.topic_prefix.cloned(),
            key: match mapping.aggregate_id.type_oid {
                oid::BYTEA => row.content(mapping.aggregate_id, "aggregate id")?,
                _ => None,
            },
            partition: match mapping.partition {
                Some(at) => row.partition(at)?,
                None => None,
            },
            ..RowRecord::default()
        };
        let payload = match &mapping.connect {
            Some(connect) => {
                let content = |at: ColumnRef, role: &str| row.padded_content(at, role);
                let made = connect.record(mapping, &event.aggregate_type, content)?;
                (record.key, record.id_header) = (Some(made.key), made.id);
                record.headers = made.headers;
                made.value
            }
            None => {
                let headers = mapping.headers.iter();
                let headers =
                    headers.map(|(at, name)| Ok(((&**name).into(), row.content(*at, name)?)));
                record.headers = headers.collect::<Result<_>>()?;
                row.content(mapping.payload, "payload")?
            }
        };
        if let Some(at) = mapping.trace_context
            && let Some(lines) = row.text(at, "trace context")?
        {
            record.headers.extend(trace_headers(&lines));
        }
        let event = match self.table.preset {
            OutboxPreset::Debezium => {
                record.payload_is_value = true;
                record.is_tombstone = payload.is_none();
                let is_given = time.is_some() || unusable_time.is_some();
                record.timestamp_ms = is_given.then(|| event.created_at_ns.div_euclid(1_000_000));
                event.with_payload_as_value(payload.unwrap_or_default(), record, lsn)
            }
            OutboxPreset::Factlib => {
                let mut metadata = BTreeMap::new();
                if let Some(at) = mapping.metadata
                    && let Some(json) = row.content(at, "metadata")?
                {
                    metadata = json_object_texts(&json)
                        .ok_or_else(|| refused("its metadata is not a JSON object".into()))?;
                }
                for (at, name) in &mapping.envelope {
                    if let Some(text) = row.text(*at, name)? {
                        metadata.insert(name.to_string(), text.to_string());
                    }
                }
                if made_values.capacity() == 0 {
                    // One block for all of a batch: a value has about the bytes of its row.
                    made_values.reserve(self.frames.len());
                }
                let payload = payload.unwrap_or_default();
                event.with_event_as_value(&payload, &metadata, record, lsn, made_values)?
            }
        };
        Ok(RowEvent { event, unusable_time })
    }

    /// Reads the row's time, or says why it can't be used. None for NULL.
    fn time(&self, row: &Row<'_>, at: ColumnRef) -> Result<Option<Result<i64, String>>> {
        let (unit, commit_ns) = (self.table.created_at_unit, self.commit_time_ns);
        let ns = match row.values.get(at.index) {
            Some(Value::Binary(value)) => time_ns_of_binary(at.type_oid, unit, value, commit_ns),
            _ => match row.text(at, "time")? {
                Some(text) => time_ns(at.type_oid, unit, &text, commit_ns),
                None => return Ok(None),
            },
        };
        let unusable = match ns {
            // Only the preset debezium uses it as the record's timestamp.
            Ok(ns) if self.table.preset == OutboxPreset::Debezium && ns < 1_000_000 => {
                "a record can't have a time before 1970".to_owned()
            }
            Ok(ns) => return Ok(Some(Ok(ns))),
            Err(UnusableTime::OutOfRange) => "it is not in the range from 1677 to 2262".to_owned(),
            Err(UnusableTime::OtherUnit(other)) => format!(
                "it is far off in {}, but not in {other}: set outbox.created_at_unit = \"{other}\"",
                unit.name(),
                other = other.name()
            ),
        };
        let text = row.text(at, "time")?.unwrap_or_default();
        Ok(Some(Err(format!("{text}: {unusable}"))))
    }
}

/// A row's values.
struct Row<'a> {
    values: &'a [Value<'a>],
    frames: &'a Bytes,
}

impl Row<'_> {
    fn required(&self, at: ColumnRef, role: &str) -> Result<ByteString> {
        self.text(at, role)?.ok_or_else(|| refused(format!("its {role} is null")))
    }

    /// Reads an id as text; a `bytea` as its hexadecimal digits.
    fn id(&self, at: ColumnRef, role: &str) -> Result<ByteString> {
        if at.type_oid != oid::BYTEA {
            return self.required(at, role);
        }
        let bytes = self.content(at, role)?;
        let bytes = bytes.ok_or_else(|| refused(format!("its {role} is null")))?;
        Ok(if bytes.is_empty() { ByteString::new() } else { hex(&bytes).into() })
    }

    fn text(&self, at: ColumnRef, role: &str) -> Result<Option<ByteString>> {
        let Some(bytes) = self.content(at, role)? else { return Ok(None) };
        ByteString::try_from(bytes)
            .map(Some)
            .map_err(|error| refused(format!("its {role} is not valid text")).caused_by(error))
    }

    /// Reads the number of a partition.
    fn partition(&self, at: ColumnRef) -> Result<Option<i32>> {
        let Some(text) = self.text(at, "partition")? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number >= 0);
        number.map(Some).ok_or_else(|| refused(format!("its partition is {text}")))
    }

    /// Reads a value as Debezium does: the blanks that fill a `char(n)` up are a part of it.
    fn padded_content(&self, at: ColumnRef, role: &str) -> Result<Option<Bytes>> {
        match (at.type_oid, self.values.get(at.index)) {
            (oid::BPCHAR, Some(Value::Text(text) | Value::Binary(text))) => {
                Ok(Some(self.frames.slice_ref(text)))
            }
            _ => self.content(at, role),
        }
    }

    /// None for NULL.
    fn content(&self, at: ColumnRef, role: &str) -> Result<Option<Bytes>> {
        let content = match self.values.get(at.index) {
            Some(Value::Null) => return Ok(None),
            Some(Value::Text(text)) => content(at.type_oid, text),
            Some(Value::Binary(value)) => content_of_binary(at.type_oid, value),
            Some(Value::Unconvertible(_)) => {
                let why = "has bytes for which the database's encoding has no character";
                return Err(refused(format!("its {role} {why}")));
            }
            // An inserted row never lacks a column.
            Some(Value::UnchangedToast) | None => {
                return Err(refused(format!("its {role} is missing")));
            }
        };
        match content {
            Some(Cow::Borrowed(slice)) => Ok(Some(self.frames.slice_ref(slice))),
            Some(Cow::Owned(bytes)) => Ok(Some(bytes.into())),
            None => Err(refused(format!("its {role} can't be read"))),
        }
    }
}

/// Reads headers from lines `name=value`, the format of Java's properties.
fn trace_headers(lines: &str) -> impl Iterator<Item = (ByteString, Option<Bytes>)> {
    let headers = java_properties::parse(lines).into_iter();
    let headers = headers.filter(|of| !of.key.is_empty() && is_legal_header(&of.key));
    headers.map(|of| (of.key.into(), Some(of.value.into())))
}

pub(super) fn refused(why: String) -> Error {
    Error::new(ErrorKind::RecordRefused, why)
}
