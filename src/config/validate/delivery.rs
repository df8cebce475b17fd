//! Validates `[delivery]` and refuses settings that exclude exactly-once.

use std::{collections::HashSet, time::Duration};

use super::{Check, humantime, kafka::check_topic_prefix, positive, quoted, wrong};
use crate::config::{Config, KafkaClient, RefusalPolicy, WaitForStandbys, size::size_text};

/// Minimum timeout, since a transaction has to outlast a request to the brokers.
const MIN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn check(config: &Config) -> Check {
    let delivery = &config.delivery;
    positive("delivery.max_interval", delivery.max_interval)?;
    if delivery.max_bytes.as_u64() == 0 {
        return wrong("delivery.max_bytes", size_text(delivery.max_bytes), "must be above zero");
    }
    let timeout = delivery.transaction_timeout;
    let longest = delivery.interval.max(delivery.max_interval);
    if timeout < MIN_TRANSACTION_TIMEOUT || timeout <= longest * 2 {
        let problem = format!(
            "must be at least {} and more than twice delivery.interval and delivery.max_interval",
            humantime(MIN_TRANSACTION_TIMEOUT)
        );
        return wrong("delivery.transaction_timeout", humantime(timeout), problem);
    }
    if let WaitForStandbys::Named(names) = &delivery.wait_for_standbys {
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| name.is_empty() || !seen.insert(*name)) {
            let problem = "must be names, each of them once";
            return wrong("delivery.wait_for_standbys", quoted(name), problem);
        }
    }
    if let Some(timeout) = delivery.standby_timeout {
        positive("delivery.standby_timeout", timeout)?;
    }
    if let Some(topic) = &delivery.position_topic {
        check_topic_prefix("delivery.position_topic", topic)?;
    }
    if config.position_topic() == config.dead_letter_topic() {
        let problem = "is the dead-letter topic as well";
        return wrong("delivery.position_topic", quoted(&config.position_topic()), problem);
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
