//! Validates `[kafka]` and topic names.

use std::time::Duration;

use super::{Check, connection, humantime, quoted, text, wrong};
use crate::{config::KafkaConfig, record::is_legal_in_topic};

/// Kafka's longest topic name (249) minus the dot and one character of aggregate type.
const MAX_TOPIC_PREFIX_BYTES: usize = 247;

/// Longer than anyone waits for a scrape.
const MAX_STATISTICS_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn check(kafka: &KafkaConfig) -> Check {
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
    connection::check(kafka)?;
    if kafka.statistics_interval > MAX_STATISTICS_INTERVAL {
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
    Ok(())
}

pub(super) fn check_topic_prefix(setting: &str, prefix: &str) -> Check {
    let legal = prefix.bytes().all(is_legal_in_topic);
    if prefix.is_empty() || prefix.len() > MAX_TOPIC_PREFIX_BYTES || !legal {
        let problem = "a topic's name starts with it, and Kafka allows letters, digits, '.', '_' and '-' there, at most 249";
        return wrong(setting, quoted(prefix), problem);
    }
    Ok(())
}

/// True for `host:port`; an IPv6 address must be in brackets.
fn is_host_port(broker: &str) -> bool {
    let Some((host, port)) = broker.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let named = !host.contains([':', '/', '[', ']']);
    let spaced = broker.contains(char::is_whitespace);
    !host.is_empty() && (bracketed || named) && !spaced && port.parse::<u16>().is_ok_and(|p| p > 0)
}
