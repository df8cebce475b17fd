//! Makes a row's record as Debezium's connector and Kafka Connect's converters make it.
//!
//! A column's text becomes a value with a schema, as in the connector; the outbox event router
//! picks values for key, value and headers; a converter makes bytes of each.
//!
//! | file | idea |
//! | --- | --- |
//! | `schema` | schemas and values between a connector and a converter |
//! | `column` | pure: schemas and values of PostgreSQL's columns |
//! | `expand` | pure: a JSON text as a struct with a schema |
//! | `document` | pure: reads JSON with the order of its fields |
//! | `converter` | pure: bytes of a value |
//! | `json` | pure: writes JSON as Jackson does |

mod column;
mod converter;
mod document;
mod expand;
mod json;
mod schema;

use std::collections::HashMap;

use bytes::Bytes;

use self::{
    converter::convert,
    expand::Expansion,
    schema::{Kind, Schema, Value},
};
use super::{
    mapping::{ColumnRef, Mapping},
    row::refused,
};
use crate::{
    Error, ErrorKind, Result,
    config::{ConnectRecords, Converter, OutboxTable, TableName},
    record::Headers,
};

/// Facts about a column that its type does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnFacts {
    /// Modifier of its type, such as the precision of a time.
    pub modifier: i32,
    pub not_null: bool,
}

/// Facts by the name of the column.
pub(crate) type FactsByColumn = HashMap<String, ColumnFacts>;

/// A table's columns with their schemas.
#[derive(Clone, Debug)]
pub(super) struct ConnectMapping {
    settings: ConnectRecords,
    id: Column,
    key: Column,
    payload: Column,
    /// As those of the mapping.
    headers: Vec<Column>,
    envelope: Vec<Column>,
    /// The name of the payload's column, which names the schema of what is expanded.
    payload_name: String,
    /// Begins the name of an envelope's schema, which the aggregate type follows.
    schema_name: String,
}

#[derive(Clone, Debug)]
struct Column {
    at: ColumnRef,
    modifier: i32,
    schema: Schema,
}

/// The parts of a record.
#[derive(Debug)]
pub(super) struct ConnectRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
    /// The header `id`.
    pub id: Option<Bytes>,
    pub headers: Headers,
}

impl ConnectMapping {
    /// Finds the schemas of the columns that a mapping has; none if the table does not ask for it.
    ///
    /// # Errors
    /// A column of a type that is not known here, or that its converter can't send.
    pub fn resolve(
        table: &OutboxTable,
        mapping: &Mapping,
        columns: &[(String, u32)],
        facts: &FactsByColumn,
    ) -> Result<Option<Self>> {
        let Some(settings) = table.connect.clone() else { return Ok(None) };
        let column = |at: ColumnRef, converter: Converter| {
            let name = columns.get(at.index).map_or("", |(name, _)| name.as_str());
            let facts = facts.get(name);
            let modifier = facts.map_or(-1, |facts| facts.modifier);
            let optional = facts.is_some_and(|facts| !facts.not_null);
            let known = column::schema(at.type_oid, modifier, optional);
            let known = known.ok_or("its type is not known to outbox.connect");
            let schema = known.and_then(|schema| match converter::refusal(converter, &schema) {
                Some(why) => Err(why),
                None => Ok(schema),
            });
            schema.map(|schema| Column { at, modifier, schema }).map_err(|why| {
                let what =
                    format!("column {name} of outbox table {} can't be sent: {why}", table.table);
                Error::new(ErrorKind::PostgresRefused, what)
                    .remedy("choose another converter in outbox.connect, or leave the column out")
            })
        };
        let additional = |of: &[(ColumnRef, std::sync::Arc<str>)], converter| {
            of.iter().map(|(at, _)| column(*at, converter)).collect::<Result<Vec<_>>>()
        };
        // An envelope is a struct, whatever is in it.
        let in_value = match mapping.envelope.is_empty() {
            true => settings.value,
            false => Converter::Json,
        };
        let TableName { schema, name } = table.qualified();
        let prefix = settings.topic_prefix.as_deref().unwrap_or_default();
        Ok(Some(ConnectMapping {
            id: column(mapping.id, settings.headers)?,
            key: column(mapping.aggregate_id, settings.key)?,
            payload: column(mapping.payload, in_value)?,
            headers: additional(&mapping.headers, settings.headers)?,
            envelope: additional(&mapping.envelope, Converter::Json)?,
            payload_name: columns
                .get(mapping.payload.index)
                .map_or_else(String::new, |(name, _)| name.clone()),
            schema_name: format!("{prefix}.{schema}.{name}."),
            settings,
        }))
    }

    /// Makes the record of a row, whose contents `content` returns.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] with the reason why the row has no record.
    pub fn record(
        &self,
        mapping: &Mapping,
        aggregate_type: &str,
        content: impl Fn(ColumnRef, &str) -> Result<Option<Bytes>>,
    ) -> Result<ConnectRecord> {
        let value = |column: &Column, role: &str| {
            let Some(content) = content(column.at, role)? else { return Ok(Value::Null) };
            column::value(column.at.type_oid, column.modifier, content)
                .ok_or_else(|| refused(format!("its {role} can't be read")))
        };
        let headers = self.headers.iter().zip(&mapping.headers).map(|(column, (_, name))| {
            let value = value(column, name)?;
            Ok(((&**name).into(), convert(self.settings.headers, &column.schema, &value)))
        });
        let key = value(&self.key, "aggregate id")?;
        let id = value(&self.id, "id")?;
        let payload = value(&self.payload, "payload")?;
        let envelope = self.envelope.iter().zip(&mapping.envelope);
        let envelope = envelope.map(|(column, (_, name))| value(column, name));
        Ok(ConnectRecord {
            key: convert(self.settings.key, &self.key.schema, &key).unwrap_or_default(),
            id: convert(self.settings.headers, &self.id.schema, &id),
            headers: headers.collect::<Result<_>>()?,
            value: self.value(
                mapping,
                aggregate_type,
                payload,
                envelope.collect::<Result<_>>()?,
            )?,
        })
    }

    fn value(
        &self,
        mapping: &Mapping,
        aggregate_type: &str,
        payload: Value,
        envelope: Vec<Value>,
    ) -> Result<Option<Bytes>> {
        let settings = &self.settings;
        if settings.tombstone_on_empty && is_empty(&payload) {
            return Ok(None);
        }
        let expanded = match settings.expand_json {
            true => self.expanded(&payload)?,
            false => None,
        };
        let (schema, payload) = match expanded {
            Some((schema, value)) => (schema, value),
            None if mapping.envelope.is_empty() => {
                return Ok(convert(settings.value, &self.payload.schema, &payload));
            }
            None => (self.payload.schema.clone(), payload),
        };
        if mapping.envelope.is_empty() {
            return Ok(convert(settings.value, &schema, &payload));
        }
        let names = mapping.envelope.iter().map(|(_, name)| name.to_string());
        let fields = names.zip(self.envelope.iter().map(|column| column.schema.clone()));
        let fields = [("payload".to_owned(), schema)].into_iter().chain(fields).collect();
        let schema = Schema {
            name: Some(format!("{}{aggregate_type}.Value", self.schema_name)),
            ..Schema::new(Kind::Struct(fields), false)
        };
        let values = [payload].into_iter().chain(envelope).collect();
        Ok(convert(settings.value, &schema, &Value::Struct(values)))
    }

    fn expanded(&self, payload: &Value) -> Result<Option<(Schema, Value)>> {
        let Value::Text(text) = payload else { return Ok(None) };
        let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
        let settings = &self.settings;
        let expansion = Expansion {
            keeps_nulls: settings.keep_nulls,
            keeps_empty_arrays: settings.keep_empty_arrays,
        };
        let expanded = expansion.expand(&self.payload_name, text);
        expanded.map_err(|_| refused("its payload is too large when it is expanded".into()))
    }
}

/// True for a payload that counts as empty: NULL, or a text of nothing but blanks.
fn is_empty(payload: &Value) -> bool {
    match payload {
        Value::Null => true,
        Value::Text(text) => text.iter().all(|byte| *byte <= b' '),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
