//! Refuses settings that `kafka.client = "kafka"` can't fulfil, before anything connects.

use super::{
    Compression, Config, Format, KafkaClient, OutboxPreset, RefusalPolicy,
    validate::{Check, quoted, wrong},
};

/// Start of every refusal.
const CLIENT: &str = "kafka.client = \"kafka\"";

pub(super) fn check_client(config: &Config) -> Check {
    let kafka = &config.kafka;
    if kafka.client != KafkaClient::Kafka {
        return Ok(());
    }
    if !cfg!(feature = "client-kafka") {
        let problem = "this build is without it: build with --features client-kafka";
        return wrong("kafka.client", "\"kafka\"", problem);
    }
    if kafka.tls {
        return cannot("kafka.tls", true, "connects without TLS");
    }
    if kafka.username.is_some() {
        return cannot("kafka.username", "given", "has no SASL");
    }
    if matches!(kafka.compression, Compression::Lz4 | Compression::Zstd) {
        let value = quoted(&format!("{:?}", kafka.compression).to_lowercase());
        return cannot("kafka.compression", value, "compresses with none, gzip or snappy");
    }
    if kafka.topics.create {
        let what = "creates no topics: create them yourself, and set this to false";
        return cannot("kafka.topics.create", true, what);
    }
    if let Some(property) = kafka.properties.keys().next() {
        return cannot(format!("kafka.properties.{property}"), "given", "takes no property");
    }
    if config.dead_letter.topic.is_some() {
        let what = "sends no headers, which say what a letter was refused for: dead letters are \
                    kept in the table factlib.dead_letters";
        return cannot("dead_letter.topic", "given", what);
    }
    if config.dead_letter.policy == RefusalPolicy::HoldAggregate {
        let what = "does not stop behind a refused record, so that later events could overtake it";
        return cannot("dead_letter.policy", "\"hold-aggregate\"", what);
    }
    check_headers(config)
}

/// Refuses settings that put data only into a record's headers.
fn check_headers(config: &Config) -> Check {
    format("kafka.format".into(), config.kafka.format)?;
    for (index, route) in config.route.iter().enumerate() {
        if let Some(of_route) = route.format {
            format(format!("route[{index}].format"), of_route)?;
        }
        if !route.headers.is_empty() {
            return cannot(format!("route[{index}].headers"), "given", "sends no headers");
        }
    }
    for (index, table) in config.outbox_tables().iter().enumerate() {
        if table.preset == OutboxPreset::Debezium {
            let what = "sends no headers, which have the id of an event of this preset";
            return cannot(format!("outbox[{index}].preset"), "\"debezium\"", what);
        }
        if !table.headers.is_empty() {
            return cannot(format!("outbox[{index}].headers"), "given", "sends no headers");
        }
    }
    Ok(())
}

fn format(setting: String, format: Format) -> Check {
    match format {
        Format::Protobuf
        | Format::Json
        | Format::CloudEventsStructured
        | Format::ConfluentProtobuf
        | Format::ConfluentJson => Ok(()),
        Format::Raw | Format::CloudEvents | Format::ConfluentPayload => {
            let what = "sends no headers, which have all but the payload in this format: use \
                        protobuf, json, cloudevents-structured, confluent-protobuf or \
                        confluent-json";
            cannot(setting, quoted(&format.to_string()), what)
        }
    }
}

fn cannot(setting: impl Into<String>, value: impl ToString, what: &str) -> Check {
    wrong(setting, value, format!("{CLIENT} {what}"))
}
