//! Lists all settings, one row each, to look up names, parse text, explain mistakes and print the
//! documentation.
//!
//! Meanings come from the doc comments of the sections' fields, defaults from [`Config::default`]; a
//! test compares the rows with both.

use std::sync::LazyLock;

use figment::value::Value;

use super::{Config, postgres::DEFAULT_URL, validate::SASL_MECHANISMS};
use crate::kafka::is_secret;

/// A setting: its name, type, default and meaning.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// Name, `section.key`, as in the file and in `--set`.
    pub name: &'static str,
    /// Type of the value.
    pub kind: Kind,
    /// Further environment variables that set it, those of the Go worker.
    pub aliases: &'static [&'static str],
    /// Default as written in a file; `None` if it is not set by default.
    pub default: Option<String>,
    /// Meaning, in a sentence or two.
    pub doc: String,
}

/// Type of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// The path of a file.
    Path,
    /// `true` or `false`; from the environment and flags also `1` or `0`.
    Switch,
    /// A whole number.
    Number,
    /// A TCP port.
    Port,
    /// An IP address.
    Address,
    /// A length of time.
    Duration,
    /// A number of bytes.
    Size,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A text for a shell, or a list of a program and its arguments.
    Command,
    /// Texts; from the environment and flags separated by commas.
    List,
    /// A whole number, or texts as in a list.
    CountOrList,
    /// Texts by name, each of which can be set by itself.
    Table,
    /// An array of tables, `[[name]]` in the file; elsewhere inline TOML.
    Tables,
}

#[rustfmt::skip]
const ROWS: &[(&str, Kind, &[&str])] = &[
    ("postgres.url", Kind::Secret, &["MASTER_DATABASE_URL"]),
    ("postgres.database", Kind::Text, &[]),
    ("postgres.password", Kind::Secret, &[]),
    ("postgres.password_command", Kind::Command, &[]),
    ("postgres.primary_url", Kind::Secret, &[]),
    ("postgres.slot", Kind::Text, &["REPLICATION_SLOT_NAME"]),
    ("postgres.publication", Kind::Text, &["PUBLICATION_NAME"]),
    ("postgres.message_prefix", Kind::Text, &["WAL_PREFIX"]),
    ("postgres.source", Kind::OneOf(&["messages", "tables"]), &[]),
    ("postgres.create", Kind::Switch, &[]),
    ("postgres.failover", Kind::Switch, &[]),
    ("postgres.status_interval", Kind::Duration, &[]),
    ("postgres.wal_receiver_timeout", Kind::Duration, &[]),
    ("postgres.connect_timeout", Kind::Duration, &[]),
    ("postgres.publication_check_interval", Kind::Duration, &[]),
    ("postgres.accept_row_filter", Kind::Switch, &[]),
    ("postgres.retained_wal_warning", Kind::Size, &[]),
    ("outbox", Kind::Tables, &[]),
    ("kafka.brokers", Kind::List, &["KAFKA_BROKERS"]),
    ("kafka.client", Kind::OneOf(&["pipelined", "kafka"]), &[]),
    ("kafka.topic_prefix", Kind::Text, &[]),
    ("kafka.format", Kind::OneOf(&["protobuf", "raw", "json", "cloudevents", "cloudevents-structured", "confluent-protobuf", "confluent-json", "confluent-payload"]), &[]),
    ("kafka.unrouted", Kind::OneOf(&["default", "dead-letter", "ignore", "stop"]), &[]),
    ("kafka.client_id", Kind::Text, &["SRC_SERVICE_NAME"]),
    ("kafka.sasl_mechanism", Kind::OneOf(SASL_MECHANISMS), &[]),
    ("kafka.username", Kind::Text, &["KAFKA_USERNAME"]),
    ("kafka.password", Kind::Secret, &["KAFKA_PASSWORD"]),
    ("kafka.oauth_token_url", Kind::Text, &[]),
    ("kafka.oauth_client_id", Kind::Text, &[]),
    ("kafka.oauth_client_secret", Kind::Secret, &[]),
    ("kafka.oauth_scope", Kind::Text, &[]),
    ("kafka.oauth_tls_ca", Kind::Path, &[]),
    ("kafka.oauth_extensions", Kind::List, &[]),
    ("kafka.tls", Kind::Switch, &["KAFKA_SSL"]),
    ("kafka.tls_ca", Kind::Path, &[]),
    ("kafka.tls_certificate", Kind::Path, &[]),
    ("kafka.tls_key", Kind::Path, &[]),
    ("kafka.tls_key_password", Kind::Secret, &[]),
    ("kafka.tls_server_name", Kind::Text, &[]),
    ("kafka.tls_verification", Kind::OneOf(&["full", "authority", "none"]), &[]),
    ("kafka.compression", Kind::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]), &[]),
    ("kafka.compression_level", Kind::Number, &[]),
    ("kafka.batch_bytes", Kind::Size, &[]),
    ("kafka.connect_timeout", Kind::Duration, &[]),
    ("kafka.request_timeout", Kind::Duration, &[]),
    ("kafka.retry_backoff", Kind::Duration, &[]),
    ("kafka.retry_backoff_max", Kind::Duration, &[]),
    ("kafka.metadata_max_age", Kind::Duration, &[]),
    ("kafka.on_partitions_added", Kind::OneOf(&["drain", "warn", "stop"]), &[]),
    ("kafka.statistics_interval", Kind::Duration, &[]),
    ("kafka.topics.create", Kind::Switch, &[]),
    ("kafka.topics.partitions", Kind::Number, &[]),
    ("kafka.topics.replication_factor", Kind::Number, &[]),
    ("kafka.topics.max", Kind::Number, &[]),
    ("kafka.topics.config", Kind::Table, &[]),
    ("kafka.properties", Kind::Table, &[]),
    ("route", Kind::Tables, &[]),
    ("schema_registry.url", Kind::List, &[]),
    ("schema_registry.username", Kind::Text, &[]),
    ("schema_registry.password", Kind::Secret, &[]),
    ("schema_registry.tls_ca", Kind::Path, &[]),
    ("schema_registry.subject", Kind::OneOf(&["topic", "record", "topic-record"]), &[]),
    ("schema_registry.auto_register", Kind::Switch, &[]),
    ("schema_registry.timeout", Kind::Duration, &[]),
    ("schema_registry.cache", Kind::Duration, &[]),
    ("checkpoint.store", Kind::OneOf(&["postgres", "file", "memory"]), &[]),
    ("checkpoint.path", Kind::Path, &[]),
    ("checkpoint.interval", Kind::Duration, &[]),
    ("checkpoint.idle_interval", Kind::Duration, &[]),
    ("delivery.mode", Kind::OneOf(&["at-least-once", "exactly-once"]), &[]),
    ("delivery.interval", Kind::Duration, &[]),
    ("delivery.max_interval", Kind::Duration, &[]),
    ("delivery.max_bytes", Kind::Size, &[]),
    ("delivery.transaction_timeout", Kind::Duration, &[]),
    ("delivery.position_topic", Kind::Text, &[]),
    ("delivery.wait_for_standbys", Kind::CountOrList, &[]),
    ("delivery.standby_timeout", Kind::Duration, &[]),
    ("delivery.wait_for_visibility", Kind::OneOf(&["auto", "always", "never"]), &[]),
    ("dead_letter.policy", Kind::OneOf(&["dead-letter", "hold-aggregate", "stop", "block"]), &[]),
    ("dead_letter.topic", Kind::Text, &[]),
    ("dead_letter.held_limit", Kind::Number, &[]),
    ("receipts.store", Kind::OneOf(&["off", "topic", "table"]), &[]),
    ("receipts.topic", Kind::Text, &[]),
    ("receipts.retention", Kind::Duration, &[]),
    ("retention.after", Kind::Duration, &[]),
    ("retention.tables", Kind::List, &[]),
    ("retention.batch", Kind::Number, &[]),
    ("retention.interval", Kind::Duration, &[]),
    ("pipeline.window", Kind::Size, &[]),
    ("pipeline.batch", Kind::Size, &[]),
    ("pipeline.restart_backoff", Kind::Duration, &[]),
    ("pipeline.restart_backoff_max", Kind::Duration, &[]),
    ("pipeline.startup_timeout", Kind::Duration, &[]),
    ("pipeline.drain_timeout", Kind::Duration, &[]),
    ("fleet.pipelines", Kind::Path, &[]),
    ("fleet.databases", Kind::List, &[]),
    ("fleet.check_interval", Kind::Duration, &[]),
    ("fleet.retry_after", Kind::Duration, &[]),
    ("fleet.group", Kind::Text, &[]),
    ("fleet.instance", Kind::Text, &[]),
    ("fleet.max_pipelines", Kind::Number, &[]),
    ("fleet.session_timeout", Kind::Duration, &[]),
    ("fleet.handover_timeout", Kind::Duration, &[]),
    ("fleet.unhealthy_when", Kind::OneOf(&["all", "any"]), &[]),
    ("http.address", Kind::Address, &[]),
    ("http.health_port", Kind::Port, &["WAL_HEALTH_PORT"]),
    ("http.metrics_port", Kind::Port, &["METRICS_PORT"]),
    ("http.page", Kind::Switch, &[]),
    ("http.token", Kind::Secret, &[]),
    ("http.stuck_after", Kind::Duration, &[]),
    ("log.level", Kind::OneOf(&["error", "warn", "info", "debug", "trace"]), &[]),
    ("log.format", Kind::OneOf(&["auto", "json", "terminal"]), &[]),
    ("log.service", Kind::Text, &["SRC_SERVICE_NAME"]),
];

/// Every setting, in the order of the sections.
pub fn settings() -> &'static [Setting] {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
        let setting = |&(name, kind, aliases): &(&'static str, Kind, _)| Setting {
            name,
            kind,
            aliases,
            default: default(name, &defaults),
            doc: doc(name),
        };
        ROWS.iter().map(setting).collect()
    });
    &SETTINGS
}

/// Finds the setting of a name; within a [`Kind::Table`], also returns the name in it.
pub(crate) fn find(name: &str) -> Option<(&'static Setting, Option<&str>)> {
    settings().iter().find_map(|setting| match name.strip_prefix(setting.name)? {
        "" => Some((setting, None)),
        rest if setting.kind == Kind::Table => {
            rest.strip_prefix('.').filter(|key| !key.is_empty()).map(|key| (setting, Some(key)))
        }
        _ => None,
    })
}

/// The one of `names` that is most similar to a misspelled `name`.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, names merely share letters.
    const MIN_SIMILARITY: f64 = 0.7;
    let compare = |other: &'a str| (strsim::normalized_damerau_levenshtein(name, other), other);
    names
        .map(compare)
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

impl Setting {
    /// Environment variable that sets it.
    pub fn env(&self) -> String {
        let name = self.name.to_uppercase().replace('.', "__");
        let key = if self.kind == Kind::Table { "__<KEY>" } else { "" };
        format!("FACTLIB_{name}{key}")
    }

    /// True if the value must not be shown; `key` is the name within a table.
    pub(crate) fn is_secret(&self, key: Option<&str>) -> bool {
        self.kind == Kind::Secret || key.is_some_and(is_secret)
    }
}

impl Kind {
    /// Description of the allowed values, to follow "expected".
    pub fn expected(self) -> String {
        match self {
            Kind::Text | Kind::Secret => "a text".into(),
            Kind::Path => "the path of a file".into(),
            Kind::Switch => "true or false".into(),
            Kind::Number => "a whole number".into(),
            Kind::Port => "a port from 1 to 65535".into(),
            Kind::Address => "an IP address".into(),
            Kind::Duration => "a duration such as 200ms, 10s or 1m30s".into(),
            Kind::Size => "a size such as 256KiB or 16MiB".into(),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Command => "a text for a shell, or a list of a program and its arguments".into(),
            Kind::List => "a list of texts".into(),
            Kind::CountOrList => "a whole number, or a list of texts".into(),
            Kind::Table => "a table of texts".into(),
            Kind::Tables => "an array of tables".into(),
        }
    }

    /// Parses a text. If that fails, the value stays text, which the setting's type then refuses.
    pub(crate) fn read(self, text: &str) -> Value {
        match self {
            Kind::Switch => match text {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => text.into(),
            },
            Kind::Number | Kind::Port => text.parse::<i64>().map_or(text.into(), Value::from),
            Kind::List => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.collect::<Vec<_>>().into()
            }
            Kind::CountOrList => match text.trim().parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => Kind::List.read(text),
            },
            Kind::Command if text.trim_start().starts_with('[') => {
                super::file::inline(text).unwrap_or(text.into())
            }
            Kind::Tables => super::file::inline(text).unwrap_or(text.into()),
            _ => text.into(),
        }
    }
}

fn default(name: &str, defaults: &serde_json::Value) -> Option<String> {
    if name == "postgres.url" {
        return Some(format!("{DEFAULT_URL:?}"));
    }
    let value = defaults.pointer(&format!("/{}", name.replace('.', "/")))?;
    let unset = value.is_null()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty);
    // JSON's scalars and lists are written as TOML's are.
    (!unset).then(|| value.to_string())
}

/// The text of a section's doc comments, from the source of its struct.
fn doc(name: &str) -> String {
    let (section, field) = name.rsplit_once('.').unwrap_or(("", name));
    let (source, section) = match section {
        "postgres" => (include_str!("postgres.rs"), "PostgresConfig"),
        "kafka" => (include_str!("kafka.rs"), "KafkaConfig"),
        "kafka.topics" => (include_str!("kafka.rs"), "TopicCreation"),
        "schema_registry" => (include_str!("schema_registry.rs"), "SchemaRegistryConfig"),
        "checkpoint" => (include_str!("checkpoint.rs"), "CheckpointConfig"),
        "dead_letter" => (include_str!("dead_letter.rs"), "DeadLetterConfig"),
        "delivery" => (include_str!("delivery.rs"), "DeliveryConfig"),
        "receipts" => (include_str!("receipts.rs"), "ReceiptsConfig"),
        "retention" => (include_str!("retention.rs"), "RetentionConfig"),
        "pipeline" => (include_str!("pipeline.rs"), "PipelineConfig"),
        "fleet" => (include_str!("fleet.rs"), "FleetConfig"),
        "http" => (include_str!("http.rs"), "HttpConfig"),
        "log" => (include_str!("log.rs"), "LogConfig"),
        _ => (include_str!("mod.rs"), "Config"),
    };
    field_doc(source, section, field).unwrap_or_default()
}

/// The doc comment of a field, in one line.
fn field_doc(source: &str, section: &str, field: &str) -> Option<String> {
    let (_, fields) = source.split_once(&format!("pub struct {section} {{\n"))?;
    let (fields, _) = fields.split_once("\n}")?;
    let (before, _) = fields.split_once(&format!("    pub {field}: "))?;
    // The comment is what stands above the field, up to the one before; a line may end in a comma.
    let above = before.lines().rev().map(str::trim);
    let own = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut lines: Vec<_> = own.filter_map(|line| line.strip_prefix("///")).collect();
    lines.reverse();
    Some(lines.into_iter().flat_map(str::split_whitespace).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of all leaves; a map is a leaf where it is a table of the user's.
    fn names(value: &serde_json::Value, path: &str, into: &mut BTreeSet<String>) {
        match value.as_object() {
            Some(map) if find(path).is_none_or(|(setting, _)| setting.kind != Kind::Table) => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    names(value, &path, into);
                }
            }
            _ => _ = into.insert(path.into()),
        }
    }

    #[test]
    fn every_setting_has_a_row_and_every_row_is_a_setting() {
        let defaults = serde_json::to_value(Config::default()).expect("plain data");
        let mut fields = BTreeSet::new();
        names(&defaults, "", &mut fields);
        let rows: BTreeSet<_> = ROWS.iter().map(|(name, ..)| name.to_string()).collect();
        assert_eq!(rows, fields);
        assert_eq!(rows.len(), ROWS.len(), "no row is there twice");
    }

    #[test]
    fn every_setting_says_what_it_means() {
        for setting in settings() {
            assert!(setting.doc.ends_with('.'), "{} has no sentence", setting.name);
            assert!(!setting.doc.contains('|'), "{} would break the table", setting.name);
        }
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_name() {
        let nearest = |name| nearest(name, settings().iter().map(|setting| setting.name));
        assert_eq!(nearest("kafka.compresion"), Some("kafka.compression"));
        assert_eq!(nearest("kafka.broker"), Some("kafka.brokers"));
        assert_eq!(nearest("xyz"), None);
    }
}
