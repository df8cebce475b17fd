//! Schemas and values as Kafka Connect has them between a connector and a converter.

use bytes::Bytes;

/// The schema of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schema {
    pub kind: Kind,
    pub optional: bool,
    /// Name, such as `io.debezium.data.Uuid`.
    pub name: Option<String>,
    pub version: Option<i32>,
    /// Parameters in their order.
    pub parameters: Vec<(&'static str, String)>,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    String,
    Bytes,
    Array(Box<Schema>),
    /// Fields in their order.
    Struct(Vec<(String, Schema)>),
}

/// A value that a schema describes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    /// Of the kinds from `Int16` to `Int64`.
    Int(i64),
    Float32(f32),
    Float64(f64),
    /// Valid UTF-8.
    Text(Bytes),
    Bytes(Bytes),
    Array(Vec<Value>),
    /// Values in the order of the schema's fields.
    Struct(Vec<Value>),
}

impl Schema {
    pub fn new(kind: Kind, optional: bool) -> Self {
        Schema { kind, optional, name: None, version: None, parameters: Vec::new() }
    }

    pub fn optional(kind: Kind) -> Self {
        Schema::new(kind, true)
    }

    /// Names the schema, with version 1.
    pub fn named(mut self, name: &str) -> Self {
        (self.name, self.version) = (Some(name.to_owned()), Some(1));
        self
    }
}

impl Kind {
    /// The name in a schema that is written as JSON.
    pub fn json_name(&self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Int16 => "int16",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Float32 => "float",
            Kind::Float64 => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Array(_) => "array",
            Kind::Struct(_) => "struct",
        }
    }
}
