//! No secret is ever shown.

use factlib::config::load::{Loaded, Loader};

use super::{env, load, mistake_in_env, mistake_in_file, mistake_in_flag};

/// A configuration all of whose secrets contain `hunter2`.
fn with_secrets() -> Loaded {
    load(
        "[kafka.properties]\n\"ssl.key.password\" = \"hunter2\"\n\"sasl.oauthbearer.client.secret\" = \"hunter2\"",
        &[
            ("MASTER_DATABASE_URL", "postgresql://u:hunter2@db/shop"),
            ("KAFKA_USERNAME", "user"),
            ("KAFKA_PASSWORD", "hunter2"),
            ("FACTLIB_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD", "hunter2"),
            ("FACTLIB_KAFKA__PROPERTIES__SSL_KEY_PEM", "hunter2"),
            ("FACTLIB_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
        ],
    )
}

#[test]
fn no_secret_is_shown() {
    let loaded = with_secrets();
    assert_eq!(loaded.config.kafka.properties.values().filter(|v| *v == "hunter2").count(), 5);
    for text in [
        format!("{loaded:?}"),
        format!("{:#?}", loaded.config),
        serde_json::to_string(&loaded.config).expect("plain data"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("ssl.key.password"), "the names are shown: {text}");
    }
}

#[test]
fn no_secret_is_shown_in_an_error() {
    for file in [
        "postgres.url = [\"hunter2\"]",
        "kafka.password = [\"hunter2\"]",
        "kafka.properties.\"sasl.password\" = [\"hunter2\"]",
        "kafka.passwrd = \"hunter2\"",
    ] {
        let text = mistake_in_file(file);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("[redacted]") || text.starts_with("unknown"), "{text}");
    }
    assert!(!mistake_in_env("FACTLIB_KAFKA__PASSWRD", "hunter2").contains("hunter2"));
    assert!(!mistake_in_flag("kafka.passwrd", "hunter2").contains("hunter2"));
    let loader = Loader::new("").flag("--set", "kafka.password", "hunter2");
    assert!(!format!("{loader:?}").contains("hunter2"));
    let loader = Loader::new("").env(env(&[("KAFKA_PASSWORD", "hunter2")]));
    assert!(!format!("{loader:?}").contains("hunter2"));
}
