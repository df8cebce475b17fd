//! Which source wins, and every name that sets something.

use std::{collections::BTreeSet, fs, time::Duration};

use factlib::{
    binary::{Kind, Loader, settings},
    config::{Compression, Config, StoreKind},
};
use secrecy::ExposeSecret;

use super::{env, folder, load, mistake, source};

#[test]
fn without_anything_the_defaults_hold_and_are_valid() {
    let loaded = load("", &[]);
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", Config::default()));
    assert!(loaded.values.iter().all(|value| value.source == "default"));
    Config::default().validate().expect("valid defaults");
}

#[test]
fn each_source_wins_over_the_one_before() {
    let folder = folder(&[]);
    let path = |name: &str| folder.path().join(name);
    let slot = |loader: Loader| {
        let loaded = loader.load().expect("a valid configuration");
        let source = source(&loaded, "postgres.slot").to_owned();
        (loaded.config.postgres.slot, source.replace(&format!("{}/", folder.path().display()), ""))
    };
    let check = |variables: &[(&str, &str)], flag: Option<&str>, value: &str, from: &str| {
        let mut loader = Loader::new(folder.path()).env(env(variables));
        if let Some(flag) = flag {
            loader = loader.flag("--slot", "postgres.slot", flag);
        }
        assert_eq!(slot(loader), (value.into(), from.into()));
    };

    check(&[], None, "factlib", "default");
    fs::write(path("factlib.toml"), "[postgres]\nslot = \"file\"\n").expect("written");
    check(&[], None, "file", "factlib.toml line 2");
    fs::write(path(".env"), "REPLICATION_SLOT_NAME=dotenv_go\n").expect("written");
    check(&[], None, "dotenv_go", "environment variable REPLICATION_SLOT_NAME in .env");
    let both = "REPLICATION_SLOT_NAME=dotenv_go\nFACTLIB_POSTGRES__SLOT=dotenv\n";
    fs::write(path(".env"), both).expect("written");
    check(&[], None, "dotenv", "environment variable FACTLIB_POSTGRES__SLOT in .env");
    let go = ("REPLICATION_SLOT_NAME", "go");
    check(&[go], None, "go", "environment variable REPLICATION_SLOT_NAME");
    let ours = ("FACTLIB_POSTGRES__SLOT", "ours");
    check(&[go, ours], None, "ours", "environment variable FACTLIB_POSTGRES__SLOT");
    check(&[go, ours], Some("flag"), "flag", "flag --slot");
    // An empty variable, as compose files make them, is none.
    check(
        &[("FACTLIB_POSTGRES__SLOT", ""), go],
        None,
        "go",
        "environment variable REPLICATION_SLOT_NAME",
    );
}

#[test]
fn the_file_is_named_by_flag_or_variable_or_found() {
    let file = |name: &str| format!("log.service = {name:?}\n");
    let folder = folder(&[
        ("factlib.toml", &file("found")),
        ("variable.toml", &file("variable")),
        ("flag.toml", &file("flag")),
    ]);
    let service = |loader: Loader| loader.load().expect("valid").config.log.service;
    let loader = || Loader::new(folder.path());
    let variable = || env(&[("FACTLIB_CONFIG", "variable.toml")]);
    assert_eq!(service(loader()), "found");
    assert_eq!(service(loader().env(variable())), "variable");
    let flag = folder.path().join("flag.toml");
    assert_eq!(service(loader().env(variable()).file(flag)), "flag");
    let text = mistake(folder.path(), loader().file(folder.path().join("none.toml")));
    let start = "cannot read the configuration file none.toml: No such file";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn the_go_workers_names_work_as_they_are() {
    let config = load(
        "",
        &[
            ("MASTER_DATABASE_URL", "postgresql://u:p@db/shop"),
            ("KAFKA_BROKERS", "a:9092, b:9093,"),
            ("WAL_PREFIX", "outbox"),
            ("REPLICATION_SLOT_NAME", "go_slot"),
            ("PUBLICATION_NAME", "go_pub"),
            ("SRC_SERVICE_NAME", "shop"),
            ("KAFKA_USERNAME", "user"),
            ("KAFKA_PASSWORD", "12345"),
            ("KAFKA_SSL", "1"),
            ("WAL_HEALTH_PORT", "8080"),
            ("METRICS_PORT", "9090"),
        ],
    )
    .config;
    assert_eq!(config.postgres.url.expose_secret(), "postgresql://u:p@db/shop");
    assert_eq!(config.kafka.brokers, ["a:9092", "b:9093"]);
    assert_eq!(config.postgres.message_prefix, "outbox");
    assert_eq!(config.topic_prefix(), "outbox");
    assert_eq!(config.postgres.slot, "go_slot");
    assert_eq!(config.postgres.publication, "go_pub");
    assert_eq!((&*config.kafka.client_id, &*config.log.service), ("shop", "shop"));
    assert_eq!(config.kafka.username.as_deref(), Some("user"));
    assert_eq!(config.kafka.password.as_ref().map(ExposeSecret::expose_secret), Some("12345"));
    assert!(config.kafka.tls);
    assert_eq!((config.http.health_port, config.http.metrics_port), (Some(8080), Some(9090)));
    for (text, on) in [("true", true), ("1", true), ("false", false), ("0", false)] {
        assert_eq!(load("", &[("KAFKA_SSL", text)]).config.kafka.tls, on);
    }
}

#[test]
fn what_kubernetes_injects_for_services_sets_nothing() {
    let file = "[http]\nmetrics_port = 7\n";
    let loaded = load(
        file,
        &[
            // A Service named factlib, one factlib-metrics, one metrics, one wal-health.
            ("FACTLIB_SERVICE_HOST", "10.96.0.7"),
            ("FACTLIB_SERVICE_PORT", "9100"),
            ("FACTLIB_SERVICE_PORT_HTTP", "9100"),
            ("FACTLIB_PORT", "tcp://10.96.0.7:9100"),
            ("FACTLIB_PORT_9100_TCP", "tcp://10.96.0.7:9100"),
            ("FACTLIB_PORT_9100_TCP_PROTO", "tcp"),
            ("FACTLIB_PORT_9100_TCP_PORT", "9100"),
            ("FACTLIB_PORT_9100_TCP_ADDR", "10.96.0.7"),
            ("FACTLIB_METRICS_SERVICE_HOST", "10.96.0.8"),
            ("FACTLIB_METRICS_PORT", "tcp://10.96.0.8:9100"),
            ("METRICS_PORT", "tcp://10.96.0.9:80"),
            ("METRICS_SERVICE_HOST", "10.96.0.9"),
            ("WAL_HEALTH_PORT", "udp://10.96.0.10:80"),
        ],
    );
    assert_eq!((loaded.config.http.health_port, loaded.config.http.metrics_port), (None, Some(7)));
    assert!(loaded.values.iter().all(|value| !value.source.contains("environment")));
}

#[test]
fn all_kinds_of_values_are_read_from_file_and_text() {
    let file = r#"
        [kafka]
        brokers = ["a:1", "[::1]:2"]
        compression = "zstd"
        properties = { "batch.size" = 50000 }
        [kafka.topics]
        partitions = 6
        config."retention.ms" = "86400000"
    "#;
    let variables = [
        ("FACTLIB_KAFKA__TOPICS__CREATE", "false"),
        ("FACTLIB_KAFKA__TOPICS__CONFIG__CLEANUP_POLICY", "compact"),
        ("FACTLIB_KAFKA__PROPERTIES__REQUEST_TIMEOUT_MS", "1500"),
        ("FACTLIB_CHECKPOINT__STORE", "file"),
        ("FACTLIB_CHECKPOINT__INTERVAL", "1m30s"),
        ("FACTLIB_PIPELINE__WINDOW", "64MiB"),
        ("FACTLIB_PIPELINE__BATCH", "65536"),
        ("FACTLIB_HTTP__ADDRESS", "::1"),
    ];
    let loaded = load(file, &variables);
    let Config { kafka, checkpoint, http, .. } = &loaded.config;
    assert_eq!(kafka.brokers, ["a:1", "[::1]:2"]);
    assert_eq!(kafka.compression, Compression::Zstd);
    assert_eq!((kafka.topics.create, kafka.topics.partitions), (false, Some(6)));
    let pairs = |table: &std::collections::BTreeMap<String, String>| format!("{table:?}");
    assert_eq!(
        pairs(&kafka.topics.config),
        r#"{"cleanup.policy": "compact", "retention.ms": "86400000"}"#
    );
    assert_eq!(
        pairs(&kafka.properties),
        r#"{"batch.size": "50000", "request.timeout.ms": "1500"}"#
    );
    assert_eq!((checkpoint.store, checkpoint.interval), (StoreKind::File, Duration::from_secs(90)));
    assert_eq!((loaded.config.window_bytes(), loaded.config.batch_bytes()), (64 << 20, 64 << 10));
    assert_eq!(http.address.to_string(), "::1");
    assert_eq!(
        source(&loaded, r#"kafka.properties."request.timeout.ms""#),
        "environment variable FACTLIB_KAFKA__PROPERTIES__REQUEST_TIMEOUT_MS"
    );
}

#[test]
fn dotted_names_in_the_file_are_kafkas_own() {
    let kafka = load("[kafka.properties]\nbatch.size = 50000\n", &[]).config.kafka;
    assert_eq!(kafka.properties.get("batch.size").map(String::as_str), Some("50000"));
}

#[test]
fn words_of_a_setting_are_those_that_it_takes() {
    for setting in settings() {
        let Kind::OneOf(words) = setting.kind else { continue };
        for word in words {
            let folder = folder(&[]);
            // Without a route, `kafka.unrouted = ignore` would be nothing at all.
            let loader = Loader::new(folder.path()).flag("--set", "route", "[{key = \"k\"}]");
            let loader = match (setting.name, *word) {
                ("kafka.client", "kafka") if !cfg!(feature = "client-kafka") => continue,
                // Which can't do what is usual.
                ("kafka.client", "kafka") => loader
                    .flag("--set", "kafka.compression", "none")
                    .flag("--set", "kafka.topics.create", "false"),
                ("kafka.tls_verification", _) => loader.flag("--set", "kafka.tls", "true"),
                ("kafka.sasl_mechanism", "OAUTHBEARER") => loader
                    .flag("--set", "kafka.oauth_token_url", "http://a:1")
                    .flag("--set", "kafka.oauth_client_id", "relay")
                    .flag("--set", "kafka.oauth_client_secret", "hunter2"),
                _ => loader,
            };
            // And a format may need a registry.
            let loader = loader.flag("--set", "schema_registry.url", "http://a:1");
            let loaded = loader.flag("--set", setting.name, *word).load();
            assert!(loaded.is_ok(), "{} = {word}: {loaded:?}", setting.name);
        }
    }
}

#[test]
fn every_setting_can_be_set_by_its_variable() {
    let mut names = BTreeSet::new();
    for setting in settings() {
        let value = match setting.kind {
            Kind::Text if setting.name.ends_with(".username") => continue,
            Kind::Secret if setting.name.ends_with(".password") => continue,
            Kind::Path if setting.name.ends_with(".tls_ca") => continue,
            _ if setting.name.starts_with("kafka.oauth_") => continue,
            _ if setting.name.starts_with("kafka.tls_") => continue,
            _ if setting.name == "kafka.sasl_mechanism" => continue,
            _ if setting.name == "kafka.compression_level" => continue,
            Kind::Duration if setting.name == "kafka.retry_backoff" => "9ms",
            Kind::OneOf(_) if setting.name == "kafka.client" => continue,
            Kind::OneOf(_) if setting.name == "kafka.format" => "json",
            Kind::List if setting.name == "schema_registry.url" => "http://a:1",
            Kind::Text | Kind::Secret | Kind::Path => "a_text_of_some_length",
            Kind::Switch => "1",
            Kind::Number | Kind::Port => "7",
            Kind::Address => "10.0.0.1",
            Kind::Duration => "9s",
            Kind::Size => "1MiB",
            Kind::OneOf(words) => words.last().expect("a word"),
            Kind::List => "a:1",
            Kind::CountOrList => "2",
            Kind::Command => "[\"printf\", \"x\"]",
            Kind::Table => "x",
            Kind::Tables if setting.name == "route" => "[{key = \"{id}\"}]",
            Kind::Tables => "[{table = \"o\"}]",
            _ => panic!("no value for {setting:?}"),
        };
        let name = setting.env().replace("<KEY>", "CLIENT_ID");
        let loaded = load("", &[(&name, value)]);
        let expected = format!("environment variable {name}");
        assert!(loaded.values.iter().any(|value| value.source == expected), "{name} sets nothing");
        assert!(names.insert(name), "{setting:?} is there twice");
    }
}
