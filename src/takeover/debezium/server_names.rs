//! Names of Debezium Server's settings, as Kafka Connect has them.

/// Prefixes of Debezium Server, and those of Kafka Connect for the same.
const PREFIXES: [(&str, &str); 4] = [
    ("debezium.source.", ""),
    ("debezium.sink.kafka.producer.", "producer.override."),
    ("debezium.transforms.", "transforms."),
    ("debezium.predicates.", "predicates."),
];

/// Converters by the names of Debezium Server's formats.
const FORMATS: [(&str, &str); 6] = [
    ("json", "org.apache.kafka.connect.json.JsonConverter"),
    ("simplestring", "org.apache.kafka.connect.storage.StringConverter"),
    ("bytearray", "org.apache.kafka.connect.converters.ByteArrayConverter"),
    ("binary", "io.debezium.converters.BinaryDataConverter"),
    ("avro", "io.confluent.connect.avro.AvroConverter"),
    ("protobuf", "io.confluent.connect.protobuf.ProtobufConverter"),
];

/// Returns the name and the value that Kafka Connect has for a setting. A setting that only
/// Debezium Server has keeps its name.
pub(super) fn as_connect(key: &str, value: &str) -> (String, String) {
    let key = from_environment(key).unwrap_or_else(|| key.to_owned());
    let value = without_escapes(value);
    match key.as_str() {
        "debezium.transforms" | "debezium.predicates" => {
            return (key.trim_start_matches("debezium.").to_owned(), value);
        }
        _ => {}
    }
    if let Some((_, prefix, rest)) = PREFIXES.into_iter().find_map(|(server, connect)| {
        key.strip_prefix(server).map(|rest| (server, connect, rest.to_owned()))
    }) {
        return (format!("{prefix}{rest}"), value);
    }
    let Some(rest) = key.strip_prefix("debezium.format.") else { return (key, value) };
    match rest.split_once('.') {
        None if ["key", "value", "header"].contains(&rest) => {
            let class = FORMATS.iter().find(|(format, _)| *format == value);
            (format!("{rest}.converter"), class.map_or(value, |(_, class)| (*class).to_owned()))
        }
        Some((part, option)) if ["key", "value", "header"].contains(&part) => {
            (format!("{part}.converter.{option}"), value)
        }
        _ => (key, value),
    }
}

/// Returns the property that a variable such as `DEBEZIUM_SOURCE_SLOT_NAME` sets: none of
/// Debezium's names has an underscore.
fn from_environment(key: &str) -> Option<String> {
    let is_variable = key.starts_with("DEBEZIUM_");
    is_variable.then(|| key.to_ascii_lowercase().replace('_', "."))
}

/// Removes the backslashes by which the file keeps `${…}` from being replaced at once.
fn without_escapes(value: &str) -> String {
    value.replace("\\${", "${")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_names_of_kafka_connect() {
        for (server, connect) in [
            ("debezium.source.slot.name=s", "slot.name=s"),
            ("debezium.transforms=outbox", "transforms=outbox"),
            (
                "debezium.transforms.outbox.route.topic.replacement=x.\\${routedByValue}",
                "transforms.outbox.route.topic.replacement=x.${routedByValue}",
            ),
            (
                "debezium.sink.kafka.producer.bootstrap.servers=k:9092",
                "producer.override.bootstrap.servers=k:9092",
            ),
            (
                "debezium.format.value=json",
                "value.converter=org.apache.kafka.connect.json.JsonConverter",
            ),
            ("debezium.format.value.schemas.enable=false", "value.converter.schemas.enable=false"),
            ("debezium.sink.type=kafka", "debezium.sink.type=kafka"),
            ("quarkus.log.level=INFO", "quarkus.log.level=INFO"),
            ("DEBEZIUM_SOURCE_DATABASE_HOSTNAME=db", "database.hostname=db"),
        ] {
            let (key, value) = server.split_once('=').expect("a pair");
            let (key, value) = as_connect(key, value);
            assert_eq!(format!("{key}={value}"), connect);
        }
    }
}
