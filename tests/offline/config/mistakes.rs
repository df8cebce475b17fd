//! Mistakes that a type refuses, and names that are none, as the operator reads them.

use factlib::binary::Loader;

use super::{folder, mistake, mistake_in_env, mistake_in_file, mistake_in_flag};

#[test]
fn a_mistake_in_the_file_is_one_line() {
    let compression = "expected one of none, gzip, snappy, lz4, zstd";
    for (file, line) in [
        (
            "[kafka]\n\ncompression = \"lz5\"",
            &*format!("kafka.compression = \"lz5\" from factlib.toml line 3: {compression}"),
        ),
        (
            "kafka.tls = \"yes\"",
            "kafka.tls = \"yes\" from factlib.toml line 1: expected true or false",
        ),
        (
            "[kafka]\nbrokers = [1]",
            "kafka.brokers = [1] from factlib.toml line 2: expected a list of texts",
        ),
        ("postgres.slot = 7", "postgres.slot = 7 from factlib.toml line 1: expected a text"),
        (
            "[kafka.properties]\nlinger.ms = [5]",
            "kafka.properties.linger.ms = [5] from factlib.toml line 2: expected a text",
        ),
        (
            "http.health_port = 70000",
            "http.health_port = 70000 from factlib.toml line 1: expected a port from 1 to 65535",
        ),
        (
            "pipeline.drain_timeout = 20",
            "pipeline.drain_timeout = 20 from factlib.toml line 1: expected a duration such as 200ms, 10s or 1m30s",
        ),
        (
            "pipeline.window = \"16 apples\"",
            "pipeline.window = \"16 apples\" from factlib.toml line 1: expected a size such as 256KiB or 16MiB",
        ),
        (
            "[kafka]\ncompresion = \"lz4\"",
            "unknown setting kafka.compresion in factlib.toml line 2 (did you mean kafka.compression?)",
        ),
        ("[kafkaa]\nx = 1", "unknown setting kafkaa in factlib.toml line 1 (did you mean kafka?)"),
        (
            "[database]\nx = 1",
            "unknown setting database in factlib.toml line 1 (`factlib config --reference` lists all settings)",
        ),
        ("kafka = 1", "kafka in factlib.toml line 1 is a section: expected [kafka]"),
        (
            "[kafka.brokers]\nx = 1",
            "kafka.brokers = a table from factlib.toml line 1: expected a list of texts",
        ),
        (
            "[[outbox]]\ntable = \"o\"\n\n[[outbox]]\ntable = \"p\"\npreset = \"dbz\"",
            "outbox[1].preset from factlib.toml line 6: unknown variant: found `dbz`, expected ``factlib` or `debezium``",
        ),
        (
            "[[outbox]]\ntable = \"o\"\ncolums.id = \"x\"",
            "outbox[0].colums from factlib.toml line 3: unknown field: found `colums`, expected `one of `table`, `preset`, `columns`, `created_at_unit`, `headers`, `envelope`, `partition`, `trace_context`, `ignore_missing`, `connect`, `topic_prefix`, `on_update`, `on_delete``",
        ),
        (
            "[[outbox]]\npreset = \"debezium\"",
            "outbox[0] from factlib.toml line 1: missing field `table`",
        ),
        ("outbox = 1", "outbox = 1 from factlib.toml line 1: expected an array of tables"),
        (
            "[outbox]\ntable = \"o\"",
            "outbox = a table from factlib.toml line 1: expected an array of tables",
        ),
        (
            "[[route]]\n\n[[route]]\nmatch.event_tpe = \"x\"",
            "route[1].match.event_tpe from factlib.toml line 4: unknown field: found `event_tpe`, expected `one of `aggregate_type`, `event_type`, `aggregate_id`, `metadata``",
        ),
        (
            "[[route]]\ntopic = 7",
            "route[0].topic from factlib.toml line 2: invalid type: found signed int `7`, expected a text or a list of texts",
        ),
        (
            "[[route]]\nformat = \"xml\"",
            "route[0].format from factlib.toml line 2: unknown variant: found `xml`, expected `one of `protobuf`, `raw`, `json`, `cloudevents`, `cloudevents-structured`, `confluent-protobuf`, `confluent-json`, `confluent-payload``",
        ),
        (
            "[[route]]\npartition = [1]",
            "route[0].partition from factlib.toml line 2: invalid type: found sequence, expected a number or a template",
        ),
        (
            "[[kafka.properties]]\nx = 1",
            "kafka.properties = a table from factlib.toml line 1: expected a table of texts",
        ),
    ] {
        assert_eq!(mistake_in_file(file), line);
    }
    let text = mistake_in_file("[postgres]\nurl = \"postgresql://u:hunter2@db");
    assert!(text.starts_with("factlib.toml line 2 is not TOML: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_mistake_in_the_environment_is_one_line() {
    for (name, value, line) in [
        (
            "KAFKA_SSL",
            "on",
            "kafka.tls = \"on\" from environment variable KAFKA_SSL: expected true or false",
        ),
        (
            "METRICS_PORT",
            "http",
            "http.metrics_port = \"http\" from environment variable METRICS_PORT: expected a port from 1 to 65535",
        ),
        (
            "KAFKA_BROKERS",
            "kafka",
            "kafka.brokers = [\"kafka\"] from environment variable KAFKA_BROKERS: \"kafka\" is not host:port, such as kafka:9092",
        ),
        (
            "FACTLIB_CHECKPOINT__STORE",
            "redis",
            "checkpoint.store = \"redis\" from environment variable FACTLIB_CHECKPOINT__STORE: expected one of postgres, file, memory",
        ),
        (
            "FACTLIB_KAFKA_BROKERS",
            "a:1",
            "environment variable FACTLIB_KAFKA_BROKERS is not a setting (did you mean FACTLIB_KAFKA__BROKERS?)",
        ),
        // Its name alone is one that Kubernetes gives.
        (
            "FACTLIB_METRICS_PORT",
            "9090",
            "environment variable FACTLIB_METRICS_PORT is not a setting (did you mean FACTLIB_HTTP__METRICS_PORT?)",
        ),
        (
            "FACTLIB_HTTP__METRICS_PORT",
            "tcp://10.96.0.7:80",
            "http.metrics_port = \"tcp://10.96.0.7:80\" from environment variable FACTLIB_HTTP__METRICS_PORT: expected a port from 1 to 65535",
        ),
        (
            "FACTLIB_X",
            "1",
            "environment variable FACTLIB_X is not a setting (`factlib config --reference` lists all settings)",
        ),
    ] {
        assert_eq!(mistake_in_env(name, value), line);
    }
    let folder = folder(&[(".env", "A=1\nKAFKA_PASSWORD='hunter2\n")]);
    let text = mistake(folder.path(), Loader::new(folder.path()));
    assert_eq!(text, ".env line 2 is not NAME=value (quote a value that has blanks or `$`)");
}

#[test]
fn a_mistake_in_a_flag_is_one_line() {
    assert_eq!(
        mistake_in_flag("kafka.topics.partitions", "many"),
        "kafka.topics.partitions = \"many\" from flag --set: expected a whole number"
    );
    assert_eq!(
        mistake_in_flag("kafka.broker", "a:1"),
        "unknown setting kafka.broker in flag --set (did you mean kafka.brokers?)"
    );
}

#[test]
fn a_route_that_can_t_be_used_is_named_with_its_line() {
    for (file, line) in [
        (
            "[[route]]\nmatch = { aggregate_type = \"order\" }\ntopic = [\"orders\", \"or ders\"]",
            "route[0].topic = \"or ders\" from factlib.toml line 3: Kafka allows letters, digits, '.', '_' and '-' in a topic's name, and 249 of them",
        ),
        (
            "[[route]]\nmatch.metadata.\"x.y\" = \"/(/\"",
            "route[0].match.metadata.x.y = \"/(/\" from factlib.toml line 2: is not a valid regular expression: unclosed group",
        ),
        (
            "[[route]]\nmatch.aggregate_type = \"a\"\n[route.headers]\nok = \"1\"\nbad = \"{tenant}\"",
            "route[0].headers.bad = \"{tenant}\" from factlib.toml line 5: has {tenant}; there are {prefix}, {aggregate_type}, {aggregate_id}, {event_type}, {id}, {metadata.KEY}",
        ),
        (
            "[[route]]\nmatch.aggregate_type = \"a*\"\n\n[[route]]\nmatch.aggregate_type = \"ab\"\ntopic = \"t\"",
            "route[1] = a table from factlib.toml line 4: is never reached: route[0] takes all that it would",
        ),
        (
            "route = [\n  { topic = \"a\", match = { aggregate_type = \"a\" } },\n  { topic = \"{\" },\n]",
            "route[1].topic = \"{\" from factlib.toml line 3: has an unmatched brace; write {{ and }} for literal braces",
        ),
        (
            "[[route]]\npartition = -1",
            "route[0].partition = \"-1\" from factlib.toml line 2: expected the number of a partition",
        ),
        (
            "[[route]]\ndrop = true\ntopic = \"t\"",
            "route[0].drop = true from factlib.toml line 2: a dropped event has no record; leave out all but match",
        ),
        (
            "kafka.unrouted = \"ignore\"",
            "kafka.unrouted = \"ignore\" from factlib.toml line 1: there is no [[route]], so that it would be every event",
        ),
        (
            "[kafka]\nunrouted = \"dead-letter\"\n[dead_letter]\npolicy = \"stop\"\n[[route]]\ndrop = true",
            "kafka.unrouted = \"dead-letter\" from factlib.toml line 2: dead_letter.policy parks nothing",
        ),
    ] {
        assert_eq!(mistake_in_file(file), line);
    }
    // What the environment sets has the environment's name, whatever the file has.
    let folder = folder(&[("factlib.toml", "[[route]]\ntopic = \"fine\"")]);
    let variable = [("FACTLIB_ROUTE", "[{topic = \"not fine\"}]")];
    let loader = Loader::new(folder.path()).env(super::env(&variable));
    let text = mistake(folder.path(), loader);
    let start =
        "route[0].topic = \"not fine\" from environment variable FACTLIB_ROUTE: Kafka allows";
    assert!(text.starts_with(start), "{text}");
}
