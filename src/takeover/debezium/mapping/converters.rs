//! Maps the converters of keys, values and headers.

use super::{Equivalence, Mapper, draft::setting};
use crate::{config::Converter, takeover::debezium::Runtime};

/// The parts of a record, with the converters that they have by default in Kafka Connect and in
/// Debezium Server.
const PARTS: [(&str, &str, &str); 3] = [
    ("key", "", "JsonConverter"),
    ("value", "", "JsonConverter"),
    ("header", "SimpleHeaderConverter", "JsonConverter"),
];

impl Mapper<'_> {
    pub(super) fn converters(&mut self) {
        let mut settings = Vec::new();
        for (part, of_connect, of_server) in PARTS {
            let key = format!("{part}.converter");
            let given = self.connector.get_or_worker(&key).map(str::to_owned);
            let default = match self.connector.runtime() {
                Runtime::KafkaConnect => of_connect,
                Runtime::DebeziumServer => of_server,
            };
            let class = given.clone().unwrap_or_else(|| default.to_owned());
            let converter = self.converter(part, class.rsplit('.').next().unwrap_or_default());
            let name = if part == "header" { "headers" } else { part };
            let (equivalence, note) = match converter {
                Ok(converter) => {
                    settings.push(setting(name, converter.as_str()));
                    (Equivalence::Maps, format!("outbox.connect.{name}"))
                }
                Err(why) => (Equivalence::Missing, why.to_owned()),
            };
            match given {
                Some(_) => self.say(&key, equivalence, note),
                None if class.is_empty() => {
                    let note = "the worker's file has it: name it with --worker";
                    self.say_default(&key, "that of the worker", Equivalence::Missing, note);
                }
                None => self.say_default(&key, &class, equivalence, &note),
            }
            let schemas = format!("{key}.schemas.enable");
            match self.connector.converter_option(&key, "schemas.enable") {
                Some(_) => {
                    self.say(&schemas, Equivalence::Maps, format!("outbox.connect.{name}"));
                }
                None => {
                    let note = "Kafka Connect ignores it here: the other file names the converter";
                    self.say(&schemas, Equivalence::Harmless, note);
                }
            }
            for option in [
                "schemas.cache.size",
                "delegate.converter.type",
                "delegate.converter.type.schemas.enable",
                "replace.null.with.default",
            ] {
                self.say(
                    &format!("{key}.{option}"),
                    Equivalence::Harmless,
                    "it does not change records",
                );
            }
            let format = format!("{key}.decimal.format");
            match self.connector.converter_option(&key, "decimal.format") {
                Some(other) if !other.eq_ignore_ascii_case("BASE64") => {
                    let note = "columns of type numeric are not sent";
                    self.say(&format, Equivalence::Missing, note);
                }
                _ => self.say(&format, Equivalence::Harmless, "it is the default"),
            }
        }
        settings.append(&mut self.draft.connect);
        self.draft.connect = settings;
    }

    fn converter(&self, part: &str, class: &str) -> Result<Converter, &'static str> {
        let schemas =
            self.connector.converter_option(&format!("{part}.converter"), "schemas.enable");
        let has_schemas = !schemas.is_some_and(|value| value.trim().eq_ignore_ascii_case("false"));
        Ok(match class {
            "StringConverter" => Converter::String,
            "JsonConverter" if has_schemas => Converter::JsonWithSchema,
            "JsonConverter" => Converter::Json,
            "ByteArrayConverter" | "BinaryDataConverter" | "ByteBufferConverter"
                if part != "header" =>
            {
                Converter::Bytes
            }
            "SimpleHeaderConverter" if part == "header" => Converter::Simple,
            "AvroConverter" | "ProtobufConverter" | "JsonSchemaConverter" => {
                return Err(
                    "records with a schema of the registry are not made equal: use format = \"confluent-payload\" or \"confluent-json\" of factlib, or keep Debezium for them",
                );
            }
            "" => return Err("not known"),
            _ => {
                return Err(
                    "factlib has no such converter: string, json, json-with-schema and bytes are there",
                );
            }
        })
    }
}
