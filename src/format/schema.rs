//! The schema of a record's value, and the registry subject it is registered under.

use serde::{Deserialize, Serialize};

use super::Format;

/// Confluent's strategies for naming a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SubjectStrategy {
    /// `{topic}-value`: `TopicNameStrategy`.
    #[default]
    Topic,
    /// The schema's full name: `RecordNameStrategy`.
    Record,
    /// `{topic}-` and the schema's full name: `TopicRecordNameStrategy`.
    TopicRecord,
}

/// The full name of factlib's own schemas.
const ENVELOPE: &str = "factlib.v1.OutboxEvent";

/// The schema of a record's value, and the registry subject it is registered under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SchemaRef {
    pub subject: String,
    pub schema: Schema,
}

/// A schema, by who registers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Schema {
    /// The `OutboxEvent` in protobuf, factlib's own.
    Protobuf,
    /// The `OutboxEvent` in JSON, factlib's own.
    Json,
    /// The schema of a payload, by its full name; the service that writes payloads registers it.
    Payload(String),
}

impl Schema {
    /// The schema of a format, if it has one. `payload` gives the name of the payload's schema.
    pub fn of(format: Format, payload: impl FnOnce() -> String) -> Option<Self> {
        Some(match format {
            Format::ConfluentProtobuf => Schema::Protobuf,
            Format::ConfluentJson => Schema::Json,
            Format::ConfluentPayload => Schema::Payload(payload()),
            _ => return None,
        })
    }

    /// The schema's full name.
    pub fn name(&self) -> &str {
        match self {
            Schema::Protobuf | Schema::Json => ENVELOPE,
            Schema::Payload(name) => name,
        }
    }
}

impl SchemaRef {
    /// Refers to a schema under the given subject, or else the one that the strategy names.
    pub fn new(
        schema: Schema,
        subject: Option<String>,
        strategy: SubjectStrategy,
        topic: &str,
    ) -> Self {
        let name = schema.name();
        let subject = subject.unwrap_or_else(|| match strategy {
            SubjectStrategy::Topic => format!("{topic}-value"),
            SubjectStrategy::Record => name.to_owned(),
            SubjectStrategy::TopicRecord => format!("{topic}-{name}"),
        });
        SchemaRef { subject, schema }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_named_as_confluent_names_them() {
        let subject = |format, strategy| {
            let schema = Schema::of(format, || "shop.Placed".into()).expect("a schema");
            SchemaRef::new(schema, None, strategy, "orders").subject
        };
        for (strategy, envelope, payload) in [
            (SubjectStrategy::Topic, "orders-value", "orders-value"),
            (SubjectStrategy::Record, "factlib.v1.OutboxEvent", "shop.Placed"),
            (SubjectStrategy::TopicRecord, "orders-factlib.v1.OutboxEvent", "orders-shop.Placed"),
        ] {
            for format in [Format::ConfluentProtobuf, Format::ConfluentJson] {
                assert_eq!(subject(format, strategy), envelope);
            }
            assert_eq!(subject(Format::ConfluentPayload, strategy), payload);
        }
        assert_eq!(Schema::of(Format::Json, String::new), None);
    }
}
