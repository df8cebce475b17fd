//! Rows that are no events, as dead letters have them, and back.
//!
//! A letter's value is the row as JSON, which an operator can read; a header has what the JSON
//! leaves out. Once the mapping fits the row, the letter becomes the event that the row is.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use factlib_postgres::pgoutput::{Tuple, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    mapping::Mapping,
    row::{Rows, refused},
    value::{bytea, hex},
};
use crate::{Error, ErrorKind, Event, Lsn, Result, config::OutboxTable};

/// Key of the object that replaces a text with invalid bytes.
const HEX: &str = "hex";

/// The header of a parked row, written as JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ParkedRow {
    /// `schema.table`.
    table: String,
    commit_time_us: i64,
    /// The base types of the columns, by their names.
    types: BTreeMap<String, u32>,
}

impl ParkedRow {
    /// The header for a row of this table.
    pub(super) fn header(
        table: &OutboxTable,
        columns: &[(String, u32)],
        commit_time_ns: i64,
    ) -> String {
        let (schema, name) = table.qualified();
        let row = ParkedRow {
            table: format!("{schema}.{name}"),
            commit_time_us: commit_time_ns.div_euclid(1_000),
            types: columns.iter().cloned().collect(),
        };
        serde_json::to_string(&row).unwrap_or_default()
    }

    /// The event that the row of a letter is, by the tables that are configured now.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why it is none, and what to change.
    pub fn event(header: &str, row: &[u8], tables: &[OutboxTable], lsn: Lsn) -> Result<Event> {
        let unreadable = |error| refused("it can't be read as a row".into()).caused_by(error);
        let parked: ParkedRow = serde_json::from_str(header).map_err(unreadable)?;
        let row: serde_json::Map<String, Json> = serde_json::from_slice(row).map_err(unreadable)?;
        let table = tables.iter().find(|table| {
            let (schema, name) = table.qualified();
            parked.table.split_once('.') == Some((schema, name))
        });
        let table = table.ok_or_else(|| {
            let what = format!("it is a row of {}, which is not an outbox table now", parked.table);
            refused(what).remedy("add the [[outbox]] that it was of")
        })?;
        let (mut columns, mut texts) = (Vec::new(), Vec::new());
        for (name, value) in row {
            let type_oid = parked.types.get(&name).copied().unwrap_or_default();
            columns.push((name, type_oid));
            texts.push(Text::from(value));
        }
        let mapping = Mapping::resolve(table, &columns).map_err(|error| {
            Error::new(ErrorKind::RecordRefused, "it is no event").caused_by(error)
        })?;
        // Of one buffer, as the stream has them.
        let mut buffer = BytesMut::new();
        texts.iter().for_each(|text| buffer.extend_from_slice(text.bytes()));
        let buffer = buffer.freeze();
        let mut rest = &buffer[..];
        let mut values = Vec::with_capacity(texts.len());
        for text in &texts {
            let (bytes, behind) = rest.split_at_checked(text.bytes().len()).unwrap_or_default();
            rest = behind;
            values.push(match text {
                Text::Null => Value::Null,
                Text::Utf8(_) => Value::Text(bytes),
                Text::Other(_) => Value::Binary(bytes),
            });
        }
        let topic_prefix = table.topic_prefix().map(Into::into);
        let rows = Rows {
            table,
            topic_prefix: topic_prefix.as_ref(),
            mapping: &mapping,
            commit_time_ns: parked.commit_time_us.saturating_mul(1_000),
            frames: &buffer,
        };
        Ok(rows.event_of(&values, lsn)?.event)
    }
}

/// A row as JSON: what an operator can read, and insert again.
pub(super) fn as_json(columns: &[(String, u32)], row: Tuple<'_>) -> Bytes {
    let value = |value| match value {
        Value::Text(bytes) | Value::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Json::from(text),
            Err(_) => Json::from_iter([(HEX, hex(bytes))]),
        },
        Value::Null | Value::UnchangedToast => Json::Null,
    };
    let names = columns.iter().map(|(name, _)| name.clone());
    let object: serde_json::Map<_, _> = names.zip(row.values().map(value)).collect();
    Json::Object(object).to_string().into()
}

/// A value of the JSON.
enum Text {
    Null,
    Utf8(String),
    Other(Vec<u8>),
}

impl Text {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Null => &[],
            Text::Utf8(text) => text.as_bytes(),
            Text::Other(bytes) => bytes,
        }
    }
}

impl From<Json> for Text {
    fn from(value: Json) -> Self {
        match value {
            Json::Null => Text::Null,
            Json::String(text) => Text::Utf8(text),
            other => {
                let bytes = other.get(HEX).and_then(Json::as_str).map(|hex| bytea(hex.as_bytes()));
                bytes.flatten().map_or(Text::Utf8(other.to_string()), Text::Other)
            }
        }
    }
}
