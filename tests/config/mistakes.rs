//! Mistakes that a type refuses, and names that are none, as the operator reads them.

use factlib::config::load::Loader;

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
            "outbox[1].preset from factlib.toml line 1: unknown variant: found `dbz`, expected ``factlib` or `debezium``",
        ),
        (
            "[[outbox]]\ntable = \"o\"\ncolums.id = \"x\"",
            "outbox[0].colums from factlib.toml line 1: unknown field: found `colums`, expected `one of `table`, `preset`, `columns`, `headers`, `envelope`, `topic_prefix`, `on_update`, `on_delete``",
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
            "environment variable FACTLIB_KAFKA_BROKERS is no setting (did you mean FACTLIB_KAFKA__BROKERS?)",
        ),
        (
            "FACTLIB_X",
            "1",
            "environment variable FACTLIB_X is no setting (`factlib config --reference` lists all settings)",
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
