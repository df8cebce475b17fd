//! `connect` of an `[[outbox]]`: a record's parts as Kafka Connect's converters make them.

use serde::{Deserialize, Serialize};

/// Settings by which a table's records equal those of Debezium's connector to the byte. Without
/// them, keys and headers are PostgreSQL's text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectRecords {
    /// Converter of keys.
    pub key: Converter,
    /// Converter of values.
    pub value: Converter,
    /// Converter of headers.
    pub headers: Converter,
    /// Expand a payload that is a JSON object: its fields have types, and nulls and empty arrays
    /// are left out.
    pub expand_json: bool,
    /// Keep fields that are null in what is expanded.
    pub keep_nulls: bool,
    /// Keep empty arrays in what is expanded.
    pub keep_empty_arrays: bool,
    /// Send a payload that is empty or blank as a record without value.
    pub tombstone_on_empty: bool,
    /// Debezium's `topic.prefix`, with which the schema of an envelope is named.
    pub topic_prefix: Option<String>,
}

/// A converter of Kafka Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Converter {
    /// `StringConverter`: text.
    String,
    /// `JsonConverter` with `schemas.enable=false`: JSON.
    Json,
    /// `JsonConverter` with `schemas.enable=true`: JSON behind its schema.
    JsonWithSchema,
    /// `ByteArrayConverter` or `BinaryDataConverter`: the bytes of a `bytea`.
    Bytes,
    /// `SimpleHeaderConverter`, for headers alone: text, and bytes as base64.
    Simple,
}

impl Default for ConnectRecords {
    fn default() -> Self {
        ConnectRecords {
            key: Converter::String,
            value: Converter::String,
            headers: Converter::Simple,
            expand_json: false,
            keep_nulls: false,
            keep_empty_arrays: false,
            tombstone_on_empty: false,
            topic_prefix: None,
        }
    }
}

impl Converter {
    /// Name of the converter in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Converter::String => "string",
            Converter::Json => "json",
            Converter::JsonWithSchema => "json-with-schema",
            Converter::Bytes => "bytes",
            Converter::Simple => "simple",
        }
    }

    pub(crate) fn is_json(self) -> bool {
        matches!(self, Converter::Json | Converter::JsonWithSchema)
    }
}
