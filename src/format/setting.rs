//! The setting `format`: the names of the formats in a configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The format of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub enum Format {
    /// The `OutboxEvent` as it was emitted.
    #[default]
    #[serde(rename = "protobuf")]
    Protobuf,
    /// The payload alone; all other fields are headers.
    #[serde(rename = "raw")]
    Raw,
    /// The `OutboxEvent` as JSON.
    #[serde(rename = "json")]
    Json,
    /// CloudEvents 1.0 in binary mode: the payload, and attributes as headers.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// CloudEvents 1.0 in structured mode: one JSON object.
    #[serde(rename = "cloudevents-structured")]
    CloudEventsStructured,
    /// The `OutboxEvent` as it was emitted, behind the id of its schema.
    #[serde(rename = "confluent-protobuf")]
    ConfluentProtobuf,
    /// The `OutboxEvent` as JSON, behind the id of its schema.
    #[serde(rename = "confluent-json")]
    ConfluentJson,
    /// The payload alone, behind the id of its schema; all other fields are headers.
    #[serde(rename = "confluent-payload")]
    ConfluentPayload,
}

impl Format {
    /// True if values begin with the id of a schema.
    pub(crate) fn has_schema(self) -> bool {
        use Format::{ConfluentJson, ConfluentPayload, ConfluentProtobuf};
        matches!(self, ConfluentProtobuf | ConfluentJson | ConfluentPayload)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Protobuf => "protobuf",
            Format::Raw => "raw",
            Format::Json => "json",
            Format::CloudEvents => "cloudevents",
            Format::CloudEventsStructured => "cloudevents-structured",
            Format::ConfluentProtobuf => "confluent-protobuf",
            Format::ConfluentJson => "confluent-json",
            Format::ConfluentPayload => "confluent-payload",
        })
    }
}
