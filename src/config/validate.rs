//! What a configuration must be beyond its types: settings that fit each other
//! and the servers' rules, and nothing that would break a promise.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::{
    ChangePolicy, CheckpointConfig, Config, HttpConfig, KafkaClient, KafkaConfig, OutboxPreset,
    OutboxTable, PipelineConfig, PostgresConfig, RefusalPolicy, Source, StoreKind, Unrouted,
    http::{EXPECTED_TOKEN, is_token},
    mistake::Mistake,
    plain_client::check_client,
    properties::{is_secret, refusal},
    secret::REDACTED,
    size::size_text,
};
use crate::{Result, routing::Routes};

/// PostgreSQL's `NAMEDATALEN - 1`.
const IDENTIFIER_BYTES: usize = 63;

/// Kafka's longest topic name (249) less the dot and one character of aggregate type.
const TOPIC_PREFIX_BYTES: usize = 247;

/// A request to the brokers has to fit into a transaction.
const SHORTEST_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The SASL mechanisms that need no library that is not built in.
pub(crate) const SASL_MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// librdkafka's.
const LONGEST_STATISTICS_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) type Check = Result<(), Mistake>;

impl Config {
    /// Refuses what can't work, before anything is connected.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): names the first setting that is wrong, and
    /// what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|mistake| mistake.error(None))
    }

    pub(crate) fn check(&self) -> Check {
        check_postgres(&self.postgres)?;
        check_outbox(self.postgres.source, &self.outbox)?;
        check_kafka(&self.kafka)?;
        check_client(self)?;
        if self.kafka.topic_prefix.is_none() {
            let prefix = &self.postgres.message_prefix;
            check_topic_prefix("postgres.message_prefix", prefix).map_err(|mut mistake| {
                mistake.problem += "; or set kafka.topic_prefix";
                mistake
            })?;
        }
        check_checkpoint(&self.checkpoint)?;
        if let Some(topic) = &self.dead_letter.topic {
            check_topic_prefix("dead_letter.topic", topic)?;
        }
        check_delivery(self)?;
        check_retention(self)?;
        check_routing(self)?;
        check_pipeline(&self.pipeline)?;
        check_http(&self.http)?;
        text("log.service", &self.log.service)
    }
}

fn check_postgres(postgres: &PostgresConfig) -> Check {
    if postgres.url.expose_secret().trim().is_empty() {
        return wrong("postgres.url", "\"\"", "must be a connection string");
    }
    let slot = &postgres.slot;
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    if slot.is_empty() || slot.len() > IDENTIFIER_BYTES || !slot.chars().all(legal) {
        let problem =
            "PostgreSQL allows 1 to 63 lower-case letters, digits and underscores in a slot's name";
        return wrong("postgres.slot", quoted(slot), problem);
    }
    text("postgres.publication", &postgres.publication)?;
    if postgres.publication.len() > IDENTIFIER_BYTES {
        let problem = "PostgreSQL allows 63 bytes in a publication's name";
        return wrong("postgres.publication", quoted(&postgres.publication), problem);
    }
    text("postgres.message_prefix", &postgres.message_prefix)?;
    positive("postgres.status_interval", postgres.status_interval)?;
    positive("postgres.connect_timeout", postgres.connect_timeout)?;
    if postgres.retained_wal_warning.as_u64() == 0 {
        let value = size_text(postgres.retained_wal_warning);
        return wrong("postgres.retained_wal_warning", value, "must be above zero");
    }
    Ok(())
}

fn check_outbox(source: Option<Source>, tables: &[OutboxTable]) -> Check {
    if source == Some(Source::Messages) && !tables.is_empty() {
        let problem = "the tables of [[outbox]] would not be read; leave one of the two out";
        return wrong("postgres.source", "\"messages\"", problem);
    }
    for (index, table) in tables.iter().enumerate() {
        let setting = |name: &str| format!("outbox[{index}].{name}");
        let (schema, name) = table.qualified();
        if schema.trim().is_empty() || name.trim().is_empty() {
            return wrong(setting("table"), quoted(&table.table), "expected schema.table");
        }
        let earlier = tables.iter().take(index);
        if earlier.into_iter().any(|other| other.qualified() == table.qualified()) {
            return wrong(setting("table"), quoted(&table.table), "is there twice");
        }
        let columns = &table.columns;
        for (name, column) in [
            ("id", &columns.id),
            ("aggregate_type", &columns.aggregate_type),
            ("aggregate_id", &columns.aggregate_id),
            ("event_type", &columns.event_type),
            ("payload", &columns.payload),
            ("created_at", &columns.created_at),
            ("metadata", &columns.metadata),
        ] {
            let column = column.as_deref().unwrap_or("named by the preset");
            text(&setting(&format!("columns.{name}")), column)?;
        }
        let debezium = table.preset == OutboxPreset::Debezium;
        if debezium && (columns.metadata.is_some() || !table.envelope.is_empty()) {
            let name = if columns.metadata.is_some() { "columns.metadata" } else { "envelope" };
            let problem = "the preset debezium sends the payload as it is, without an envelope; \
                           use outbox.headers";
            return wrong(setting(name), "given", problem);
        }
        for (list, entries) in [("headers", &table.headers), ("envelope", &table.envelope)] {
            // Kafka's client takes names of headers as C strings.
            let blank = |entry: &String| {
                entry.contains('\0') || entry.split(':').any(|part| part.trim().is_empty())
            };
            if let Some(entry) = entries.iter().find(|entry| blank(entry)) {
                return wrong(setting(list), quoted(entry), "expected column or column:name");
            }
        }
        if let Some(prefix) = &table.topic_prefix {
            check_topic_prefix(&setting("topic_prefix"), prefix)?;
        }
    }
    Ok(())
}

fn check_kafka(kafka: &KafkaConfig) -> Check {
    let shown = || format!("{:?}", kafka.brokers);
    if kafka.brokers.is_empty() {
        return wrong("kafka.brokers", shown(), "must name at least one broker as host:port");
    }
    if let Some(broker) = kafka.brokers.iter().find(|broker| !is_host_port(broker)) {
        let problem = format!("{broker:?} is not host:port, such as kafka:9092");
        return wrong("kafka.brokers", shown(), problem);
    }
    if let Some(prefix) = &kafka.topic_prefix {
        check_topic_prefix("kafka.topic_prefix", prefix)?;
    }
    text("kafka.client_id", &kafka.client_id)?;
    check_sasl(kafka)?;
    if let (Some(path), false) = (&kafka.tls_ca, kafka.tls) {
        let problem = "has no effect while kafka.tls is false";
        return wrong("kafka.tls_ca", quoted(&path.to_string_lossy()), problem);
    }
    if kafka.statistics_interval > LONGEST_STATISTICS_INTERVAL {
        let shown = humantime(kafka.statistics_interval);
        return wrong("kafka.statistics_interval", shown, "must be at most 1day");
    }
    let topics = &kafka.topics;
    if topics.max == 0 {
        return wrong("kafka.topics.max", 0, "must be at least 1");
    }
    let counts =
        [("partitions", topics.partitions), ("replication_factor", topics.replication_factor)];
    for (name, count) in counts {
        if let Some(count) = count.filter(|count| *count < 1) {
            let problem = "must be at least 1; leave it out for the broker's default";
            return wrong(format!("kafka.topics.{name}"), count, problem);
        }
    }
    for (property, value) in &kafka.properties {
        if let Some(problem) = refusal(property, value) {
            let value = if is_secret(property) { REDACTED.into() } else { quoted(value) };
            return wrong(format!("kafka.properties.{property}"), value, problem);
        }
    }
    Ok(())
}

fn check_sasl(kafka: &KafkaConfig) -> Check {
    if !SASL_MECHANISMS.contains(&kafka.sasl_mechanism.as_str()) {
        let problem = format!("expected one of {}", SASL_MECHANISMS.join(", "));
        return wrong("kafka.sasl_mechanism", quoted(&kafka.sasl_mechanism), problem);
    }
    match (&kafka.username, &kafka.password) {
        (Some(username), _) if username.is_empty() => wrong(
            "kafka.username",
            "\"\"",
            "must not be empty; leave it out to connect without SASL",
        ),
        (Some(_), None) => missing("kafka.password", "kafka.username needs it"),
        (None, Some(_)) => missing("kafka.username", "kafka.password needs it"),
        _ => Ok(()),
    }
}

fn check_topic_prefix(setting: &str, prefix: &str) -> Check {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if prefix.is_empty() || prefix.len() > TOPIC_PREFIX_BYTES || !prefix.chars().all(legal) {
        let problem = "a topic's name starts with it, and Kafka allows letters, digits, '.', '_' and '-' there, at most 249";
        return wrong(setting, quoted(prefix), problem);
    }
    Ok(())
}

fn check_checkpoint(checkpoint: &CheckpointConfig) -> Check {
    if checkpoint.store == StoreKind::File && checkpoint.path.as_os_str().is_empty() {
        return wrong("checkpoint.path", "\"\"", "must name the file that the store `file` writes");
    }
    positive("checkpoint.interval", checkpoint.interval)?;
    positive("checkpoint.idle_interval", checkpoint.idle_interval)
}

fn check_delivery(config: &Config) -> Check {
    let delivery = &config.delivery;
    positive("delivery.max_interval", delivery.max_interval)?;
    if delivery.max_bytes.as_u64() == 0 {
        return wrong("delivery.max_bytes", size_text(delivery.max_bytes), "must be above zero");
    }
    let timeout = delivery.transaction_timeout;
    let longest = delivery.interval.max(delivery.max_interval);
    if timeout < SHORTEST_TRANSACTION_TIMEOUT || timeout <= longest * 2 {
        let problem = format!(
            "must be at least {} and more than twice delivery.interval and delivery.max_interval",
            humantime(SHORTEST_TRANSACTION_TIMEOUT)
        );
        return wrong("delivery.transaction_timeout", humantime(timeout), problem);
    }
    if let Some(topic) = &delivery.position_topic {
        check_topic_prefix("delivery.position_topic", topic)?;
    }
    if config.is_exactly_once() && config.kafka.client == KafkaClient::Kafka {
        let problem = "kafka.client = \"kafka\" knows no transactions";
        return wrong("delivery.mode", "\"exactly-once\"", problem);
    }
    if config.is_exactly_once() && config.dead_letter.policy == RefusalPolicy::Block {
        let problem = "a transaction can't wait for a record that is refused for ever; \
                       dead_letter.policy has to be \"dead-letter\" or \"stop\"";
        return wrong("delivery.mode", "\"exactly-once\"", problem);
    }
    Ok(())
}

fn check_retention(config: &Config) -> Check {
    let retention = &config.retention;
    if let Some(after) = retention.after {
        positive("retention.after", after)?;
    }
    if retention.batch == 0 {
        return wrong("retention.batch", 0, "must be above zero");
    }
    positive("retention.interval", retention.interval)?;
    for name in &retention.tables {
        text("retention.tables", name)?;
    }
    let read = config.outbox_tables();
    let noticed = |table: &&OutboxTable| {
        table.on_delete != ChangePolicy::Ignore
            && read.iter().any(|read| read.qualified() == table.qualified())
    };
    if let Some(table) = config.retention_tables().iter().find(noticed) {
        let problem = format!(
            "the relay removes rows of {} itself: its outbox.on_delete has to be \"ignore\"",
            table.table
        );
        let after = retention.after.map(humantime).unwrap_or_default();
        return wrong("retention.after", after, problem);
    }
    Ok(())
}

fn check_routing(config: &Config) -> Check {
    Routes::new(config)?;
    let (setting, unrouted) = ("kafka.unrouted", config.kafka.unrouted);
    if config.route.is_empty() && unrouted == Unrouted::Ignore {
        let problem = "there is no [[route]], so that it would be every event";
        return wrong(setting, quoted(unrouted.as_str()), problem);
    }
    let parks = config.dead_letter.policy == RefusalPolicy::DeadLetter;
    if unrouted == Unrouted::DeadLetter && !parks {
        let problem = "dead_letter.policy parks nothing";
        return wrong(setting, quoted(unrouted.as_str()), problem);
    }
    Ok(())
}

fn check_pipeline(pipeline: &PipelineConfig) -> Check {
    let (window, batch) = (pipeline.window, pipeline.batch);
    if batch.as_u64() == 0 {
        return wrong("pipeline.batch", size_text(batch), "must be above zero");
    }
    if window < batch {
        let problem =
            format!("must hold at least one batch (pipeline.batch = {})", size_text(batch));
        return wrong("pipeline.window", size_text(window), problem);
    }
    positive("pipeline.restart_backoff", pipeline.restart_backoff)?;
    if pipeline.restart_backoff_max < pipeline.restart_backoff {
        let least = humantime(pipeline.restart_backoff);
        let problem = format!("must not be below pipeline.restart_backoff = {least}");
        let value = humantime(pipeline.restart_backoff_max);
        return wrong("pipeline.restart_backoff_max", value, problem);
    }
    positive("pipeline.drain_timeout", pipeline.drain_timeout)
}

fn check_http(http: &HttpConfig) -> Check {
    for (setting, port) in [("health_port", http.health_port), ("metrics_port", http.metrics_port)]
    {
        if port == Some(0) {
            return wrong(format!("http.{setting}"), 0, "expected a port from 1 to 65535");
        }
    }
    if let Some(token) = &http.token {
        let token = token.expose_secret();
        if !is_token(token) {
            return wrong("http.token", REDACTED, EXPECTED_TOKEN);
        }
    }
    positive("http.stuck_after", http.stuck_after)
}

/// `host:port`; an IPv6 address stands in brackets.
fn is_host_port(broker: &str) -> bool {
    let Some((host, port)) = broker.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let named = !host.contains([':', '/', '[', ']']);
    let spaced = broker.contains(char::is_whitespace);
    !host.is_empty() && (bracketed || named) && !spaced && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn text(setting: &str, value: &str) -> Check {
    if value.trim().is_empty() {
        return wrong(setting, quoted(value), "must not be empty");
    }
    Ok(())
}

fn positive(setting: &str, value: Duration) -> Check {
    if value.is_zero() {
        return wrong(setting, humantime(value), "must be above zero");
    }
    Ok(())
}

pub(super) fn wrong(
    setting: impl Into<String>,
    value: impl ToString,
    problem: impl Into<String>,
) -> Check {
    let (setting, problem) = (setting.into(), problem.into());
    Err(Mistake { setting, value: Some(value.to_string()), problem })
}

fn missing(setting: &str, problem: &str) -> Check {
    Err(Mistake { setting: setting.into(), value: None, problem: problem.into() })
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn humantime(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(duration).to_string()
}
