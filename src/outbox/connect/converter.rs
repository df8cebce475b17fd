//! Converters of Kafka Connect: each makes bytes of a value and its schema.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{
    json::{java_double, java_float, write_value, write_with_schema},
    schema::{Kind, Schema, Value},
};
use crate::config::Converter;

/// Converts a value to bytes; none for no value at all.
pub(super) fn convert(converter: Converter, schema: &Schema, value: &Value) -> Option<Bytes> {
    match (converter, value) {
        (Converter::Json, _) => Some(json(|to| write_value(to, schema, value))),
        (Converter::JsonWithSchema, _) => Some(json(|to| write_with_schema(to, schema, value))),
        (_, Value::Null) => None,
        (Converter::Simple, Value::Bytes(bytes)) => Some(BASE64_STANDARD.encode(bytes).into()),
        (Converter::String | Converter::Bytes | Converter::Simple, _) => Some(text(value)),
    }
}

/// The reason why a converter can't send values of a schema as Debezium does.
pub(super) fn refusal(converter: Converter, schema: &Schema) -> Option<&'static str> {
    match (converter, &schema.kind) {
        (Converter::String, Kind::Bytes) => {
            Some("Kafka Connect's StringConverter sends the name of a Java object for it")
        }
        (Converter::Bytes, kind) if *kind != Kind::Bytes => {
            Some("Kafka Connect's ByteArrayConverter takes only bytea")
        }
        _ => None,
    }
}

fn json(write: impl FnOnce(&mut String)) -> Bytes {
    let mut text = String::new();
    write(&mut text);
    text.into()
}

/// Java's text of a value.
fn text(value: &Value) -> Bytes {
    match value {
        Value::Text(text) | Value::Bytes(text) => text.clone(),
        Value::Boolean(value) => value.to_string().into(),
        Value::Int(number) => number.to_string().into(),
        Value::Float32(number) => java_float(*number).into(),
        Value::Float64(number) => java_double(*number).into(),
        // Such values are converted to JSON only.
        Value::Null | Value::Array(_) | Value::Struct(_) => Bytes::new(),
    }
}
