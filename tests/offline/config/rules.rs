//! Mistakes that only the rules refuse, as the operator reads them.

#[cfg(feature = "client-kafka")]
use factlib::config::{Compression, Format, OutboxPreset, OutboxTable, RefusalPolicy, Route};
use factlib::{
    binary::Loader,
    config::{Config, KafkaConfig},
};

use super::{folder, load, mistake, mistake_in_file, mistake_in_flag};

#[test]
fn a_window_beyond_the_counter_is_cut_to_it() {
    let config = load("pipeline.window = \"8GiB\"", &[]).config;
    assert_eq!(config.window_bytes(), u32::MAX);
}

#[test]
fn what_makes_no_sense_is_refused() {
    const LONG: &str = "a_name_of_sixty_four_bytes_is_one_longer_than_postgresql_allows_";
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
            "postgres.publication",
            LONG,
            &*format!(
                "postgres.publication = \"{LONG}\" from flag --set: PostgreSQL allows 63 bytes in a publication's name"
            ),
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
        ("receipts.retention", "0s", "receipts.retention = 0s from flag --set: must be above zero"),
        (
            "receipts.topic",
            "a b",
            "receipts.topic = \"a b\" from flag --set: a topic's name starts with it, and Kafka allows letters, digits, '.', '_' and '-' there, at most 249",
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
            "kafka.sasl_mechanism = \"GSSAPI\" from flag --set: expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER",
        ),
        ("kafka.username", "u", "kafka.password is not set: kafka.username needs it"),
        ("kafka.password", "p", "kafka.username is not set: kafka.password needs it"),
        (
            "kafka.username",
            "",
            "kafka.username = \"\" from flag --set: must not be empty; leave it out to connect without SASL",
        ),
        (
            "kafka.tls_ca",
            "ca.pem",
            "kafka.tls_ca = \"ca.pem\" from flag --set: has no effect while kafka.tls is false",
        ),
        (
            "kafka.oauth_client_secret",
            "hunter2",
            "kafka.oauth_client_secret = given from flag --set: has no effect unless kafka.sasl_mechanism is OAUTHBEARER",
        ),
        (
            "kafka.tls_key_password",
            "hunter2",
            "kafka.tls_key_password = [redacted] from flag --set: has no effect while kafka.tls is false",
        ),
        (
            "kafka.tls_verification",
            "none",
            "kafka.tls_verification = \"none\" from flag --set: has no effect while kafka.tls is false",
        ),
        (
            "kafka.compression_level",
            "3",
            "kafka.compression_level = 3 from flag --set: has no effect: only gzip and zstd in kafka.compression have levels",
        ),
        (
            "kafka.batch_bytes",
            "100",
            "kafka.batch_bytes = 100B from flag --set: must be at least 1KiB",
        ),
        (
            "kafka.request_timeout",
            "0s",
            "kafka.request_timeout = 0s from flag --set: must be above zero",
        ),
        (
            "kafka.retry_backoff_max",
            "1ms",
            "kafka.retry_backoff_max = 1ms from flag --set: must not be below kafka.retry_backoff = 50ms",
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
            "schema_registry.password",
            "p",
            "schema_registry.username is not set: schema_registry.password needs it",
        ),
        (
            "schema_registry.url",
            "http://u:hunter2@registry",
            "schema_registry.url = an address from flag --set: has credentials; use schema_registry.username and schema_registry.password",
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
            "dead_letter.held_limit",
            "0",
            "dead_letter.held_limit = 0 from flag --set: must be above zero",
        ),
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
        (
            "http.token",
            "short",
            "http.token = [redacted] from flag --set: expected at least 16 characters of ASCII, no spaces, as `openssl rand -hex 16` prints them",
        ),
        (
            "delivery.transaction_timeout",
            "1s",
            "delivery.transaction_timeout = 1s from flag --set: must be at least 5s and more than twice delivery.interval and delivery.max_interval",
        ),
        (
            "delivery.wait_for_standbys",
            "b, b",
            "delivery.wait_for_standbys = \"b\" from flag --set: must be names, each of them once",
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
    let brokers = "kafka.brokers sets it";
    let acks = "factlib needs acks=all: PostgreSQL forgets what Kafka acknowledged";
    let order = "factlib sets it: the order of an aggregate's events rests on it";
    let outage = "factlib sets it: an outage is waited for, and a record that gives up would \
                  break the order";
    for (property, why) in [
        ("bootstrap.servers", brokers),
        ("metadata.broker.list", brokers),
        ("acks", acks),
        ("request.required.acks", acks),
        ("enable.idempotence", order),
        ("max.in.flight", order),
        ("max.in.flight.requests.per.connection", order),
        ("queuing.strategy", order),
        ("message.timeout.ms", outage),
        ("delivery.timeout.ms", outage),
        ("retries", outage),
        ("message.send.max.retries", outage),
        ("delivery.report.only.error", "factlib sets it: it needs the result of every record"),
        (
            "allow.auto.create.topics",
            "factlib creates topics itself, as kafka.topics has it: brokers would make them by their own defaults",
        ),
        ("enable.gapless.guarantee", order),
        (
            "transactional.id",
            "factlib makes it of cluster and slot, so that an instance that was replaced is fenced",
        ),
        ("transaction.timeout.ms", "delivery.transaction_timeout sets it"),
    ] {
        let mut config = Config::default();
        config.kafka.properties.insert(property.into(), "1".into());
        let error = config.validate().expect_err("a refusal").to_string();
        assert_eq!(error, format!("kafka.properties.{property} = \"1\": {why}"));
    }
    let mut config = Config::default();
    config.kafka.properties.insert("partitioner".into(), "murmur2".into());
    config.validate().expect("it is Java's");
}

#[test]
fn a_login_by_token_has_all_that_it_needs_and_nothing_else() {
    const WHOLE: &str = "[kafka]
        sasl_mechanism = \"OAUTHBEARER\"
        oauth_token_url = \"https://id.example/token\"
        oauth_client_id = \"relay\"
        oauth_client_secret = \"hunter2\"
        oauth_extensions = [\"logicalCluster=lkc-1\"]";
    let refused = |change: fn(&mut KafkaConfig)| {
        let mut config = load(WHOLE, &[]).config;
        change(&mut config.kafka);
        config.validate().map_err(|error| error.to_string())
    };
    refused(|_| ()).expect("this is how it is used");
    let needs = "kafka.sasl_mechanism = \"OAUTHBEARER\" needs it";
    type Change = fn(&mut KafkaConfig);
    let changes: [(String, Change); 9] = [
        (format!("kafka.oauth_token_url is not set: {needs}"), |kafka| kafka.oauth_token_url = None),
        (format!("kafka.oauth_client_id is not set: {needs}"), |kafka| kafka.oauth_client_id = None),
        (format!("kafka.oauth_client_secret is not set: {needs}"), |kafka| {
            kafka.oauth_client_secret = None;
        }),
        (
            "kafka.oauth_token_url = \"id.example\": expected http(s)://host/path".into(),
            |kafka| kafka.oauth_token_url = Some("id.example".into()),
        ),
        (
            "kafka.oauth_token_url = an address: has credentials; use kafka.oauth_client_id and \
             kafka.oauth_client_secret"
                .into(),
            |kafka| kafka.oauth_token_url = Some("https://u:hunter2@id.example".into()),
        ),
        ("kafka.username = given: is not used with OAUTHBEARER".into(), |kafka| {
            kafka.username = Some("relay".into());
        }),
        ("kafka.password = [redacted]: is not used with OAUTHBEARER".into(), |kafka| {
            kafka.password = Some("hunter2".to_owned().into());
        }),
        (
            "kafka.oauth_extensions = \"auth=x\": expected name=value, with letters only in the name"
                .into(),
            |kafka| kafka.oauth_extensions.push("auth=x".into()),
        ),
        (
            "kafka.oauth_tls_ca = \"ca.crt\": has no effect without an https address in \
             kafka.oauth_token_url"
                .into(),
            |kafka| {
                kafka.oauth_token_url = Some("http://id.example/token".into());
                kafka.oauth_tls_ca = Some("ca.crt".into());
            },
        ),
    ];
    for (problem, change) in changes {
        assert_eq!(refused(change).expect_err(&problem), problem);
    }
}

#[test]
fn a_certificate_needs_its_key() {
    for (file, problem) in [
        (
            "kafka = {tls = true, tls_key = \"k\"}",
            "kafka.tls_certificate is not set: kafka.tls_key needs it",
        ),
        (
            "kafka = {tls = true, tls_certificate = \"c\"}",
            "kafka.tls_key is not set: kafka.tls_certificate needs it",
        ),
        (
            "kafka = {tls = true, tls_key_password = \"hunter2\"}",
            "kafka.tls_key is not set: kafka.tls_key_password is that of a key",
        ),
        (
            "kafka = {compression = \"gzip\", compression_level = 10}",
            "kafka.compression_level = 10 from factlib.toml line 1: gzip has the levels 1 to 9",
        ),
        (
            "kafka = {compression = \"zstd\", compression_level = 0}",
            "kafka.compression_level = 0 from factlib.toml line 1: zstd has the levels 1 to 22",
        ),
    ] {
        assert_eq!(mistake_in_file(file), problem);
    }
}

#[test]
fn properties_of_librdkafka_set_what_they_stand_for() {
    let file = "[kafka]
        [kafka.properties]
        \"security.protocol\" = \"SASL_SSL\"
        \"sasl.mechanisms\" = \"PLAIN\"
        \"sasl.username\" = \"relay\"";
    assert_eq!(mistake_in_file(file), "kafka.password is not set: kafka.username needs it");
    load(&format!("{file}\n\"sasl.password\" = \"hunter2\""), &[]);
    for (name, value, problem) in [
        (
            "sasl.mechanism",
            "GSSAPI",
            "expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER; there is no Kerberos",
        ),
        ("sasl.oauthbearer.method", "x", "expected oidc: tokens come from kafka.oauth_token_url"),
        (
            "sasl.oauthbearer.grant.type",
            "x",
            "expected client_credentials, the only grant that factlib has",
        ),
        (
            "partitioner",
            "consistent",
            "expected murmur2_random: factlib chooses partitions as Java's clients do",
        ),
    ] {
        let mut config = Config::default();
        config.kafka.properties.insert(name.into(), value.into());
        let error = config.validate().expect_err(name).to_string();
        assert_eq!(error, format!("kafka.properties.{name} = {value:?}: {problem}"));
    }
    let mut config = Config::default();
    config.kafka.properties.insert("sasl.pasword".into(), "hunter2".into());
    assert_eq!(
        config.validate().expect_err("mistyped").to_string(),
        "kafka.properties.sasl.pasword = [redacted]: is no property that factlib knows: \
         docs/kafka-clients.md lists them"
    );
    let without = file.replace("SASL_SSL", "SSL") + "\n\"sasl.password\" = \"hunter2\"";
    assert_eq!(
        mistake_in_file(&without),
        "kafka.properties.security.protocol = \"SSL\" from factlib.toml line 3: connects without a \
         login, but one is set: leave one of the two out"
    );
    let linger = format!("{file}\n\"linger.ms\" = 5");
    assert_eq!(
        mistake_in_file(&linger),
        "kafka.properties.linger.ms = \"5\" from factlib.toml line 6: is not needed: a batch leaves \
         at once while its broker is idle, and grows by itself under load"
    );
}

#[test]
fn what_exactly_once_does_not_go_with_is_refused() {
    let once = "delivery.mode = \"exactly-once\"\n";
    let plain = "kafka = {client = \"kafka\", compression = \"gzip\", topics.create = false}";
    for (other, why) in [
        #[cfg(feature = "client-kafka")]
        (plain, "kafka.client = \"kafka\" knows no transactions"),
        (
            "dead_letter.policy = \"block\"",
            "a transaction can't wait for a record that is refused for ever; \
             dead_letter.policy has to be \"dead-letter\" or \"stop\"",
        ),
    ] {
        let line = format!("delivery.mode = \"exactly-once\" from factlib.toml line 1: {why}");
        assert_eq!(mistake_in_file(&format!("{once}{other}")), line);
    }
    #[cfg(not(feature = "client-kafka"))]
    assert_eq!(
        mistake_in_file(plain),
        "kafka.client = \"kafka\" from factlib.toml line 1: this build is without it: build with --features client-kafka"
    );
}

#[cfg(feature = "client-kafka")]
#[test]
fn what_the_client_kafka_cannot_do_is_refused() {
    const NO_HEADERS: &str = "sends no headers, which have all but the payload in this format: \
        use protobuf, json, cloudevents-structured, confluent-protobuf or confluent-json";
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
        config.route = vec![Route::default().format(Format::ConfluentProtobuf)];
    })
    .expect("so do these");
    type Change = fn(&mut Config);
    let changes: [(&str, &str, Change); 13] = [
        ("kafka.tls", "connects without TLS", |config| config.kafka.tls = true),
        ("kafka.username", "has no SASL", |config| {
            config.kafka.username = Some("relay".into());
            config.kafka.password = Some("hunter2".to_owned().into());
        }),
        ("kafka.compression", "compresses with none, gzip or snappy", |config| {
            config.kafka.compression = Compression::Zstd;
        }),
        (
            "kafka.topics.create",
            "creates no topics: create them yourself, and set this to false",
            |config| config.kafka.topics.create = true,
        ),
        ("kafka.properties.client.id", "takes no property", |config| {
            config.kafka.properties.insert("client.id".into(), "relay".into());
        }),
        (
            "dead_letter.topic",
            "sends no headers, which say what a letter was refused for: dead letters are kept \
             in the table factlib.dead_letters",
            |config| config.dead_letter.topic = Some("letters".into()),
        ),
        (
            "dead_letter.policy",
            "does not stop behind a refused record, so that later events could overtake it",
            |config| config.dead_letter.policy = RefusalPolicy::HoldAggregate,
        ),
        ("kafka.format", NO_HEADERS, |config| config.kafka.format = Format::CloudEvents),
        ("kafka.format", NO_HEADERS, |config| config.kafka.format = Format::ConfluentPayload),
        ("route[0].format", NO_HEADERS, |config| {
            config.route = vec![Route::default().format(Format::Raw)];
        }),
        ("route[0].headers", "sends no headers", |config| {
            config.route = vec![Route::default().header("tenant", "7")];
        }),
        (
            "outbox[0].preset",
            "sends no headers, which have the id of an event of this preset",
            |config| config.outbox = vec![OutboxTable::new("public.o", OutboxPreset::Debezium)],
        ),
        ("outbox[0].headers", "sends no headers", |config| {
            let mut table = OutboxTable::new("public.o", OutboxPreset::Factlib);
            table.headers = vec!["tenant".into()];
            config.outbox = vec![table];
        }),
    ];
    for (setting, why, change) in changes {
        let error = refused(change).expect_err(setting);
        let why = format!(": kafka.client = \"kafka\" {why}");
        assert!(error.starts_with(setting) && error.ends_with(&why), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn outbox_tables_that_make_no_sense_are_refused() {
    for (tables, problem) in [
        ("[{table = \"a.\"}]", "outbox[0].table = \"a.\" from flag --set: expected schema.table"),
        (
            "[{table = '\"t*.o'}]",
            "outbox[0].table = \"\\\"t*.o\" from flag --set: a quoted name has no closing quote",
        ),
        (
            "[{table = 't_*.\"o\"*'}]",
            "outbox[0].table = \"t_*.\\\"o\\\"*\" from flag --set: expected a dot or the end behind a \
             quoted name",
        ),
        (
            "[{table = \"t_*.o\"}, {table = 't_*.\"o\"'}]",
            "outbox[1].table = \"t_*.\\\"o\\\"\" from flag --set: is listed twice",
        ),
        (
            "[{table = \"o\"}, {table = \"public.o\"}]",
            "outbox[1].table = \"public.o\" from flag --set: is listed twice",
        ),
        (
            "[{table = \"o\", columns = {id = \"\"}}]",
            "outbox[0].columns.id = \"\" from flag --set: must not be empty",
        ),
        (
            "[{table = \"o\", preset = \"debezium\", envelope = [\"tenant\"]}]",
            "outbox[0].envelope = given from flag --set: the preset debezium sends the payload as it is, without an envelope; use outbox.headers, or outbox.connect with an envelope in JSON",
        ),
        (
            "[{table = \"o\", connect = {}}]",
            "outbox[0].connect = given from flag --set: converters of Kafka Connect are for the preset debezium",
        ),
        (
            "[{table = \"o\", preset = \"debezium\", columns = {metadata = \"m\"}, connect = {}}]",
            "outbox[0].columns.metadata = given from flag --set: the preset debezium has no metadata; use outbox.headers",
        ),
        (
            "[{table = \"o\", preset = \"debezium\", connect = {key = \"simple\"}}]",
            "outbox[0].connect.key = simple from flag --set: is a converter for headers alone",
        ),
        (
            "[{table = \"o\", preset = \"debezium\", connect = {headers = \"bytes\"}}]",
            "outbox[0].connect.headers = bytes from flag --set: is a converter for keys and values alone",
        ),
        (
            "[{table = \"o\", preset = \"debezium\", connect = {expand_json = true}}]",
            "outbox[0].connect.value = string from flag --set: can't send a payload that is expanded, or in an envelope: use json",
        ),
        (
            "[{table = \"o\", partition = \"\"}]",
            "outbox[0].partition = \"\" from flag --set: must not be empty",
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
    let why = "the tables of [[outbox]] would not be read; leave one of the two out";
    assert_eq!(error, format!("postgres.source = \"messages\": {why}"));
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
    let pattern = "retention = {after = \"30d\", tables = [\"t_*.o\", \"t_a.o\"]}
                   [[outbox]]\ntable = \"t_*.o\"\ncolumns.created_at = \"at\"";
    assert_eq!(names(pattern), ["t_*.o", "t_a.o"]);
    let tables = load(pattern, &[]).config.retention_tables();
    assert!(tables.iter().all(|table| table.columns.created_at.as_deref() == Some("at")));
    let mut noticed = load(&format!("retention.after = \"30d\"\n{debezium}"), &[]).config;
    noticed.outbox[1].on_delete = factlib::config::ChangePolicy::Warn;
    let error = noticed.validate().expect_err("it would see its own deletes").to_string();
    assert!(error.contains("its outbox.on_delete has to be \"ignore\""), "{error}");
}

#[test]
fn receipts_have_a_topic_of_their_own_and_a_client_that_says_where_records_are() {
    for (topic, role) in [
        ("factlib.dead-letter", "is the dead-letter topic as well"),
        ("factlib.checkpoints", "is the topic of positions as well"),
    ] {
        let file = format!("[receipts]\nstore = \"topic\"\ntopic = {topic:?}");
        let line = mistake_in_file(&file);
        assert!(line.starts_with("receipts.topic = ") && line.ends_with(role), "{line}");
    }
}

#[test]
fn a_table_of_receipts_is_not_part_of_a_transaction() {
    let line =
        mistake_in_file("[delivery]\nmode = \"exactly-once\"\n[receipts]\nstore = \"table\"");
    let text = "with delivery.mode = \"exactly-once\", receipts have to be in the transactions of \
                their events, which the table is not: set \"topic\"";
    assert!(line.starts_with("receipts.store = \"table\"") && line.ends_with(text), "{line}");
}

#[cfg(feature = "client-kafka")]
#[test]
fn the_plain_client_can_t_tell_where_a_record_is() {
    let mut config = Config::default();
    config.kafka.client = factlib::config::KafkaClient::Kafka;
    config.kafka.compression = Compression::None;
    config.kafka.topics.create = false;
    config.receipts.store = factlib::config::ReceiptStore::Table;
    let error = config.validate().expect_err("no offsets").to_string();
    let text =
        "receipts.store = \"table\": kafka.client = \"kafka\" does not say where it put a record";
    assert!(error.contains(text), "{error}");
}
