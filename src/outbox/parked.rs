//! Converts a refused row to a dead letter, and back to an event.
//!
//! The letter's value is the row as JSON, which an operator can read; a header has what the JSON
//! leaves out. Once the configured mapping fits the row, redriving the letter sends its event.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use factlib_postgres::pgoutput::{Tuple, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    binary,
    mapping::Mapping,
    row::{RowContext, refused},
    value::{bytea, hex},
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{OutboxPreset, OutboxTable},
};

/// Key of the JSON object that stands for a text with invalid bytes.
const HEX: &str = "hex";

/// Header of a parked row, written as JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ParkedRow {
    /// `schema.table`.
    table: String,
    commit_time_us: i64,
    /// Base types of the columns, by name.
    types: BTreeMap<String, u32>,
}

impl ParkedRow {
    /// Returns the header for a row of this table.
    pub(super) fn header(
        table: &OutboxTable,
        columns: &[(String, u32)],
        commit_time_ns: i64,
    ) -> String {
        let row = ParkedRow {
            table: table.qualified().to_string(),
            commit_time_us: commit_time_ns.div_euclid(1_000),
            types: columns.iter().cloned().collect(),
        };
        serde_json::to_string(&row).unwrap_or_default()
    }

    /// Reads a letter's row as an event, by the tables that are configured now.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] with the reason why it is still not an event, and the remedy.
    pub fn event(header: &str, row: &[u8], tables: &[OutboxTable], lsn: Lsn) -> Result<Event> {
        let unreadable = |error| refused("it can't be read as a row".into()).caused_by(error);
        let parked: ParkedRow = serde_json::from_str(header).map_err(unreadable)?;
        let row: serde_json::Map<String, Json> = serde_json::from_slice(row).map_err(unreadable)?;
        let name = OutboxTable::new(&parked.table, OutboxPreset::default()).qualified();
        let table = OutboxTable::of_name(tables, &name).ok_or_else(|| {
            let what = format!("it is a row of {}, which is not an outbox table now", parked.table);
            refused(what).remedy("add an [[outbox]] for that table")
        })?;
        let (mut columns, mut texts) = (Vec::new(), Vec::new());
        for (name, value) in row {
            let type_oid = parked.types.get(&name).copied().unwrap_or_default();
            columns.push((name, type_oid));
            texts.push(CellText::from(value));
        }
        let mapping = Mapping::resolve(&table, &columns).map_err(|error| {
            Error::new(ErrorKind::RecordRefused, "it is no event").caused_by(error)
        })?;
        // The values are slices of one buffer, as in the stream.
        let mut buffer = BytesMut::new();
        texts.iter().for_each(|text| buffer.extend_from_slice(text.bytes()));
        let buffer = buffer.freeze();
        let mut rest = &buffer[..];
        let mut values = Vec::with_capacity(texts.len());
        for text in &texts {
            let (bytes, behind) = rest.split_at_checked(text.bytes().len()).unwrap_or_default();
            rest = behind;
            values.push(match text {
                CellText::Null => Value::Null,
                CellText::Utf8(_) => Value::Text(bytes),
                CellText::Other(_) => Value::Unconvertible(bytes),
            });
        }
        let topic_prefix = table.topic_prefix().map(Into::into);
        let context = RowContext {
            table: &table,
            topic_prefix: topic_prefix.as_ref(),
            mapping: &mapping,
            commit_time_ns: parked.commit_time_us.saturating_mul(1_000),
            frames: &buffer,
        };
        Ok(context.event_from_values(&values, lsn, &mut BytesMut::new())?.event)
    }
}

/// Writes a row as JSON, which an operator can read and insert again.
pub(super) fn as_json(columns: &[(String, u32)], row: Tuple<'_>) -> Bytes {
    let json = |text: &[u8]| match std::str::from_utf8(text) {
        Ok(text) => Json::from(text),
        Err(_) => Json::from_iter([(HEX, hex(text))]),
    };
    let value = |type_oid, value| match value {
        Value::Text(bytes) | Value::Unconvertible(bytes) => json(bytes),
        Value::Binary(bytes) => json(&binary::text(type_oid, bytes).unwrap_or(bytes.into())),
        Value::Null | Value::UnchangedToast => Json::Null,
    };
    let columns = columns.iter().zip(row.values());
    let columns = columns.map(|((name, type_oid), of)| (name.clone(), value(*type_oid, of)));
    Json::Object(columns.collect()).to_string().into()
}

/// A value of the JSON row.
enum CellText {
    Null,
    Utf8(String),
    Other(Vec<u8>),
}

impl CellText {
    fn bytes(&self) -> &[u8] {
        match self {
            CellText::Null => &[],
            CellText::Utf8(text) => text.as_bytes(),
            CellText::Other(bytes) => bytes,
        }
    }
}

impl From<Json> for CellText {
    fn from(value: Json) -> Self {
        match value {
            Json::Null => CellText::Null,
            Json::String(text) => CellText::Utf8(text),
            other => {
                let bytes = other.get(HEX).and_then(Json::as_str).map(|hex| bytea(hex.as_bytes()));
                bytes.flatten().map_or(CellText::Utf8(other.to_string()), CellText::Other)
            }
        }
    }
}
