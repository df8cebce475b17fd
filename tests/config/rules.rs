//! Mistakes that only the rules refuse, as the operator reads them.

#[cfg(feature = "client-kafka")]
use factlib::config::{Compression, Format, OutboxPreset, OutboxTable, Route};
use factlib::config::{Config, load::Loader};

use super::{folder, load, mistake, mistake_in_flag};

#[test]
fn a_window_beyond_the_counter_is_cut_to_it() {
    let config = load("pipeline.window = \"8GiB\"", &[]).config;
    assert_eq!(config.window_bytes(), u32::MAX);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let why_acks = "factlib needs acks=all: PostgreSQL forgets what Kafka acknowledged";
    for (setting, value, line) in [
        (
            "postgres.slot",
            "My-Slot",
            "postgres.slot = \"My-Slot\" from flag --set: PostgreSQL allows 1 to 63 lower-case letters, digits and underscores in a slot's name",
        ),
        ("postgres.url", "", "postgres.url = \"\" from flag --set: must be a connection string"),
        (
            "postgres.publication",
            " ",
            "postgres.publication = \" \" from flag --set: must not be empty",
        ),
        (
            "postgres.message_prefix",
            "",
            "postgres.message_prefix = \"\" from flag --set: must not be empty",
        ),
        (
            "postgres.message_prefix",
            "a/b",
            "postgres.message_prefix = \"a/b\" from flag --set: a topic's name starts with it, and Kafka allows letters, digits, '.', '_' and '-' there, at most 249; or set kafka.topic_prefix",
        ),
        (
            "kafka.topic_prefix",
            "a b",
            "kafka.topic_prefix = \"a b\" from flag --set: a topic's name starts with it, and Kafka allows letters, digits, '.', '_' and '-' there, at most 249",
        ),
        (
            "postgres.status_interval",
            "0s",
            "postgres.status_interval = 0s from flag --set: must be above zero",
        ),
        (
            "kafka.brokers",
            "",
            "kafka.brokers = [] from flag --set: must name at least one broker as host:port",
        ),
        (
            "kafka.brokers",
            "ssl://a:1",
            "kafka.brokers = [\"ssl://a:1\"] from flag --set: \"ssl://a:1\" is not host:port, such as kafka:9092",
        ),
        (
            "kafka.statistics_interval",
            "2days",
            "kafka.statistics_interval = 2days from flag --set: must be at most 1day",
        ),
        (
            "kafka.sasl_mechanism",
            "GSSAPI",
            "kafka.sasl_mechanism = \"GSSAPI\" from flag --set: expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        ("kafka.username", "u", "kafka.password is not set: kafka.username needs it"),
        ("kafka.password", "p", "kafka.username is not set: kafka.password needs it"),
        (
            "kafka.tls_ca",
            "ca.pem",
            "kafka.tls_ca = \"ca.pem\" from flag --set: has no effect while kafka.tls is false",
        ),
        (
            "schema_registry.url",
            "registry:8081",
            "schema_registry.url = \"registry:8081\" from flag --set: expected http(s)://host:port, with a path where there is one",
        ),
        (
            "schema_registry.username",
            "u",
            "schema_registry.password is not set: schema_registry.username needs it",
        ),
        (
            "schema_registry.tls_ca",
            "ca.pem",
            "schema_registry.tls_ca = \"ca.pem\" from flag --set: has no effect without an https address in schema_registry.url",
        ),
        (
            "kafka.format",
            "confluent-json",
            "kafka.format = \"confluent-json\" from flag --set: needs schema_registry.url",
        ),
        (
            "route",
            "[{ subject = 'x' }]",
            "route[0].subject = \"x\" from flag --set: only records of a format confluent-… have a schema",
        ),
        (
            "kafka.topics.partitions",
            "0",
            "kafka.topics.partitions = 0 from flag --set: must be at least 1; leave it out for the broker's default",
        ),
        (
            "kafka.properties.acks",
            "1",
            &*format!("kafka.properties.acks = \"1\" from flag --set: {why_acks}"),
        ),
        (
            "kafka.properties.partitioner",
            "random",
            "kafka.properties.partitioner = \"random\" from flag --set: the events of one aggregate would go to several partitions, out of order",
        ),
        (
            "pipeline.window",
            "1KiB",
            "pipeline.window = 1KiB from flag --set: must hold at least one batch (pipeline.batch = 256KiB)",
        ),
        ("pipeline.batch", "0", "pipeline.batch = 0B from flag --set: must be above zero"),
        (
            "pipeline.restart_backoff_max",
            "1ms",
            "pipeline.restart_backoff_max = 1ms from flag --set: must not be below pipeline.restart_backoff = 100ms",
        ),
        (
            "http.health_port",
            "0",
            "http.health_port = 0 from flag --set: expected a port from 1 to 65535",
        ),
        ("log.service", "", "log.service = \"\" from flag --set: must not be empty"),
    ] {
        assert_eq!(mistake_in_flag(setting, value), line);
    }
    let folder = folder(&[]);
    let file = Loader::new(folder.path()).flag("--set", "checkpoint.store", "file");
    assert_eq!(
        mistake(folder.path(), file.flag("--set", "checkpoint.path", "")),
        "checkpoint.path = \"\" from flag --set: must name the file that the store `file` writes"
    );
}

#[test]
fn properties_that_a_promise_rests_on_are_refused() {
    for property in [
        "bootstrap.servers",
        "metadata.broker.list",
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "retries",
        "message.send.max.retries",
        "delivery.report.only.error",
        "transactional.id",
    ] {
        let mut config = Config::default();
        config.kafka.properties.insert(property.into(), "1".into());
        let error = config.validate().expect_err("a refusal").to_string();
        assert!(error.starts_with(&format!("kafka.properties.{property} = \"1\": ")), "{error}");
    }
    let mut config = Config::default();
    config.kafka.properties.insert("partitioner".into(), "murmur2".into());
    config.kafka.properties.insert("linger.ms".into(), "5".into());
    config.validate().expect("all others are the operator's");
}

#[cfg(feature = "client-kafka")]
#[test]
fn what_the_client_kafka_cannot_do_is_refused() {
    const USUAL: &str =
        "kafka = {client = \"kafka\", compression = \"gzip\", topics.create = false}";
    let refused = |change: fn(&mut Config)| {
        let mut config = load(USUAL, &[]).config;
        change(&mut config);
        config.validate().map_err(|error| error.to_string())
    };
    refused(|_| ()).expect("this is how it can be used");
    refused(|config| config.kafka.format = Format::Json).expect("JSON says all in the value");
    refused(|config| {
        config.schema_registry.url = vec!["http://a:1".into()];
        config.kafka.format = Format::ConfluentJson;
        config.route = vec![Route { format: Some(Format::ConfluentProtobuf), ..Route::default() }];
    })
    .expect("so do these");
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 12] = [
        ("kafka.tls", |config| config.kafka.tls = true),
        ("kafka.username", |config| {
            config.kafka.username = Some("relay".into());
            config.kafka.password = Some("hunter2".to_owned().into());
        }),
        ("kafka.compression", |config| config.kafka.compression = Compression::Zstd),
        ("kafka.topics.create", |config| config.kafka.topics.create = true),
        ("kafka.properties.linger.ms", |config| {
            config.kafka.properties.insert("linger.ms".into(), "5".into());
        }),
        ("dead_letter.topic", |config| config.dead_letter.topic = Some("letters".into())),
        ("kafka.format", |config| config.kafka.format = Format::CloudEvents),
        ("kafka.format", |config| config.kafka.format = Format::ConfluentPayload),
        ("route[0].format", |config| {
            config.route = vec![Route { format: Some(Format::Raw), ..Route::default() }];
        }),
        ("route[0].headers", |config| {
            let headers = [("tenant".into(), "7".into())].into();
            config.route = vec![Route { headers, ..Route::default() }];
        }),
        ("outbox[0].preset", |config| {
            config.outbox = vec![OutboxTable::new("public.o", OutboxPreset::Debezium)];
        }),
        ("outbox[0].headers", |config| {
            let table = OutboxTable::new("public.o", OutboxPreset::Factlib);
            config.outbox = vec![OutboxTable { headers: vec!["tenant".into()], ..table }];
        }),
    ];
    for (setting, change) in changes {
        let error = refused(change).expect_err(setting);
        assert!(error.starts_with(setting) && error.contains("\"kafka\""), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn outbox_tables_that_make_no_sense_are_refused() {
    for (tables, problem) in [
        ("[{table = \"a.\"}]", "outbox[0].table = \"a.\" from flag --set: expected schema.table"),
        (
            "[{table = \"o\"}, {table = \"public.o\"}]",
            "outbox[1].table = \"public.o\" from flag --set: is there twice",
        ),
        (
            "[{table = \"o\", columns = {id = \"\"}}]",
            "outbox[0].columns.id = \"\" from flag --set: must not be empty",
        ),
        (
            "[{table = \"o\", preset = \"debezium\", envelope = [\"tenant\"]}]",
            "outbox[0].envelope = given from flag --set: the preset debezium sends the payload as it is, without an envelope; use outbox.headers",
        ),
        (
            "[{table = \"o\", headers = [\"tenant:\"]}]",
            "outbox[0].headers = \"tenant:\" from flag --set: expected column or column:name",
        ),
        (
            "[{table = \"o\", topic_prefix = \"a b\"}]",
            "outbox[0].topic_prefix = \"a b\" from flag --set: a topic's name starts with it, and Kafka allows letters, digits, '.', '_' and '-' there, at most 249",
        ),
    ] {
        assert_eq!(mistake_in_flag("outbox", tables), problem);
    }
}

#[test]
fn the_relay_reads_tables_or_messages() {
    use factlib::config::Source;
    let tables = |file| load(file, &[]).config.outbox_tables();
    assert!(tables("").is_empty());
    let default = tables("postgres.source = \"tables\"");
    assert_eq!(
        default.iter().map(|table| &*table.table).collect::<Vec<_>>(),
        ["public.outbox_events"]
    );
    assert_eq!(tables("[[outbox]]\ntable = \"o\"\n[[outbox]]\ntable = \"p\"").len(), 2);
    let from_env = load("", &[("FACTLIB_OUTBOX", "[{table = \"o\", headers = [\"tenant\"]}]")]);
    assert_eq!(from_env.config.outbox[0].headers, ["tenant"]);
    let mut both = from_env.config;
    both.postgres.source = Some(Source::Messages);
    let error = both.validate().expect_err("neither is meant").to_string();
    assert!(
        error.starts_with("postgres.source = \"messages\": the tables of [[outbox]]"),
        "{error}"
    );
}

#[test]
fn retention_removes_from_what_is_read_or_archived_and_is_off_at_first() {
    let names = |file: &str| {
        let tables = load(file, &[]).config.retention_tables();
        tables.into_iter().map(|table| table.table).collect::<Vec<_>>()
    };
    assert!(names("").is_empty());
    assert_eq!(names("retention.after = \"30d\""), ["public.outbox_events"]);
    let debezium = "[[outbox]]\ntable = \"o\"\npreset = \"debezium\"\n[[outbox]]\ntable = \"p\"";
    assert_eq!(names(&format!("retention.after = \"30d\"\n{debezium}")), ["p"]);
    let named = "retention = {after = \"30d\", tables = [\"a.b\"]}";
    assert_eq!(names(named), ["a.b"]);
    let mut noticed = load(&format!("retention.after = \"30d\"\n{debezium}"), &[]).config;
    noticed.outbox[1].on_delete = factlib::config::ChangePolicy::Warn;
    let error = noticed.validate().expect_err("it would see its own deletes").to_string();
    assert!(error.contains("its outbox.on_delete has to be \"ignore\""), "{error}");
}
