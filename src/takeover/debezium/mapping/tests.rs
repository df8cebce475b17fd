//! Maps whole configurations, and loads what was written.

use std::path::Path;

use super::*;

fn mapped(text: &str) -> ConfigMapping {
    let connector = ConnectorConfig::parse(text, Path::new("c.properties")).expect("a connector");
    ConfigMapping::of(&connector)
}

const CONNECT: &str = "\
name=outbox
connector.class=io.debezium.connector.postgresql.PostgresConnector
database.hostname=db
database.user=re lay
database.password=hunter2
database.dbname=shop
database.sslmode=verify-full
topic.prefix=shop
plugin.name=pgoutput
snapshot.mode=never
table.include.list=public\\\\.outbox,sales.facts
tombstones.on.delete=false
producer.override.bootstrap.servers=k1:9092,k2:9092
producer.override.security.protocol=SASL_SSL
producer.override.sasl.mechanism=PLAIN
producer.override.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"u\" password=\"hunter2\";
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=false
transforms=outbox
transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
transforms.outbox.route.topic.replacement=events.${routedByValue}
transforms.outbox.table.field.event.id=event_id
transforms.outbox.table.field.event.timestamp=at
transforms.outbox.table.fields.additional.placement=type:header:eventType,tenant:envelope,shard:partition
transforms.outbox.table.expand.json.payload=true
transforms.outbox.table.op.invalid.behavior=fatal
no.such.setting=x
";

#[test]
fn a_connector_becomes_a_configuration_without_secrets() {
    let mapping = mapped(CONNECT);
    let expected = r#"# Made by `factlib takeover debezium` of c.properties. All settings: factlib config --example.

[postgres]
url = "postgresql://re%20lay@db:5432/shop?sslmode=verify-full"
# The password comes from FACTLIB_POSTGRES__PASSWORD, or postgres.password_file.
slot = "debezium"
publication = "dbz_publication"

[kafka]
brokers = ["k1:9092","k2:9092"]
tls = true
sasl_mechanism = "PLAIN"
username = "u"
# The password comes from FACTLIB_KAFKA__PASSWORD, or kafka.password_file.

[[outbox]]
table = "public.outbox"
preset = "debezium"
columns.id = "event_id"
columns.created_at = "at"
topic_prefix = "events"
partition = "shard"
headers = ["type:eventType"]
envelope = ["tenant"]
on_update = "stop"

[outbox.connect]
key = "string"
value = "json"
headers = "simple"
topic_prefix = "shop"
expand_json = true

[[outbox]]
table = "sales.facts"
preset = "debezium"
columns.id = "event_id"
columns.created_at = "at"
topic_prefix = "events"
partition = "shard"
headers = ["type:eventType"]
envelope = ["tenant"]
on_update = "stop"

[outbox.connect]
key = "string"
value = "json"
headers = "simple"
topic_prefix = "shop"
expand_json = true
"#;
    assert_eq!(mapping.toml, expected);
    let secrets: Vec<_> = mapping.secrets.iter().map(|(setting, _)| *setting).collect();
    assert_eq!(secrets, ["postgres.password", "kafka.password"]);
    assert!(!format!("{:?}", mapping.settings).contains("hunter2"));
    let unknown: Vec<_> = mapping.treated(Equivalence::Unknown).collect();
    let [unknown] = &unknown[..] else { panic!("{unknown:?}") };
    assert_eq!((unknown.key.as_str(), unknown.line), ("no.such.setting", Some(28)));
    assert_eq!(mapping.treated(Equivalence::Missing).count(), 0);
    assert!(!mapping.is_complete());
}

#[test]
fn every_setting_is_named_once() {
    let mapping = mapped(CONNECT);
    let mut keys: Vec<_> = mapping.settings.iter().map(|of| of.key.as_str()).collect();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count, "{keys:?}");
    for line in CONNECT.lines() {
        let key = line.split('=').next().expect("a key");
        assert!(keys.contains(&key), "{key}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn what_is_written_can_be_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("factlib.toml"), mapped(CONNECT).toml).expect("written");
    let env = [("FACTLIB_KAFKA__PASSWORD".to_owned(), "p".to_owned())];
    let loaded = crate::config::load::Loader::new(folder.path()).env(env).load();
    let config = loaded.expect("a valid file").config;
    let [first, second] = &config.outbox[..] else { panic!("{:?}", config.outbox) };
    assert_eq!((first.table.as_str(), second.table.as_str()), ("public.outbox", "sales.facts"));
    assert_eq!(first.partition.as_deref(), Some("shard"));
    assert!(first.connect.as_ref().is_some_and(|connect| connect.expand_json));
}

#[test]
fn what_is_missing_has_a_remedy() {
    let mapping = mapped(
        "connector.class=io.debezium.connector.postgresql.PostgresConnector\n\
         table.include.list=public.outbox_.*\n\
         transforms=outbox,route\n\
         transforms.outbox.type=io.debezium.transforms.outbox.EventRouter\n\
         transforms.outbox.route.topic.regex=(?!x).*\n\
         transforms.route.type=org.apache.kafka.connect.transforms.RegexRouter\n\
         value.converter=io.confluent.connect.avro.AvroConverter\n",
    );
    let missing: Vec<_> =
        mapping.treated(Equivalence::Missing).map(|of| (of.key.as_str(), &of.note[..])).collect();
    let find = |key: &str| missing.iter().find(|(other, _)| *other == key).map(|(_, note)| *note);
    for (key, said) in [
        ("bootstrap.servers", "the worker's file has them: name it with --worker"),
        ("key.converter", "the worker's file has it: name it with --worker"),
        ("plugin.name", "factlib reads pgoutput: "),
        ("table.include.list", "\"public.outbox_.*\" is a pattern"),
        ("transforms.outbox.route.topic.regex", "Rust's regular expressions lack a look ahead"),
        ("transforms.route.type", "factlib has no other transformations"),
        ("value.converter", "records with a schema of the registry are not made equal"),
    ] {
        assert!(find(key).is_some_and(|note| note.starts_with(said)), "{key}: {missing:?}");
    }
}

const CLASS: &str = "connector.class=io.debezium.connector.postgresql.PostgresConnector\n";

#[test]
fn secrets_are_not_shown() {
    let mapping = mapped(&format!(
        "{CLASS}value.converter.basic.auth.user.info=svc:hunter2\n\
         value.converter.schema.registry.url=https://a,https://svc:hunter2@registry/x@y\n"
    ));
    let json = serde_json::to_string(&mapping).expect("JSON");
    assert!(!json.contains("hunter2"), "{json}");
}

#[test]
fn a_converter_has_the_options_of_the_file_that_names_it() {
    let (converter, json) = ("value.converter", "org.apache.kafka.connect.json.JsonConverter");
    let plain = "value.converter.schemas.enable=False";
    for (connector, worker, expected) in [
        (format!("{converter}={json}"), plain.to_owned(), "json-with-schema"),
        (plain.to_owned(), format!("{converter}={json}"), "json-with-schema"),
        (format!("{converter}={json}\n{plain}"), String::new(), "json"),
        (String::new(), format!("{converter}={json}\n{plain}"), "json"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("worker.properties");
        std::fs::write(&file, format!("bootstrap.servers=k:9092\n{worker}\n")).expect("written");
        let text = format!("{CLASS}{connector}\n");
        let connector = ConnectorConfig::parse(&text, Path::new("c")).expect("a connector");
        let mapping = ConfigMapping::of(&connector.with_worker(&file).expect("a worker"));
        let line = format!("value = \"{expected}\"");
        assert!(mapping.toml.contains(&line), "{text}{worker}\n{}", mapping.toml);
    }
}

#[test]
fn words_have_any_case_and_harmless_values_are_harmless() {
    let mapping = mapped(&format!(
        "{CLASS}slot.drop.on.stop=false\nslot.failover=False\n\
         value.converter.decimal.format=BASE64\ndatabase.hostname=${{env:PGHOST}}\n\
         database.port=${{env:PGPORT}}\ntransforms=outbox\n\
         transforms.outbox.type=io.debezium.transforms.outbox.EventRouter\n\
         transforms.outbox.table.expand.json.payload=True\n\
         transforms.outbox.table.op.invalid.behavior=FATAL\n"
    ));
    let equivalence = |key: &str| {
        let setting = mapping.settings.iter().find(|setting| setting.key == key);
        setting.map(|setting| setting.equivalence)
    };
    for key in ["slot.drop.on.stop", "value.converter.decimal.format"] {
        assert_eq!(equivalence(key), Some(Equivalence::Harmless), "{key}");
    }
    for key in ["database.hostname", "database.port"] {
        assert_eq!(equivalence(key), Some(Equivalence::Differs), "{key}");
    }
    for line in
        ["failover = false", "expand_json = true", "on_update = \"stop\"", "localhost:5432/"]
    {
        assert!(mapping.toml.contains(line), "{line}\n{}", mapping.toml);
    }
}
