//! Validates `[receipts]`.

use super::{Check, kafka::check_topic_prefix, positive, quoted, wrong};
use crate::config::{Config, KafkaClient, ReceiptStore};

pub(super) fn check(config: &Config) -> Check {
    let receipts = &config.receipts;
    positive("receipts.retention", receipts.retention)?;
    if let Some(topic) = &receipts.topic {
        check_topic_prefix("receipts.topic", topic)?;
    }
    let store = match receipts.store {
        ReceiptStore::Off => return Ok(()),
        ReceiptStore::Topic => "\"topic\"",
        ReceiptStore::Table => "\"table\"",
    };
    if config.kafka.client == KafkaClient::Kafka {
        let problem = "kafka.client = \"kafka\" does not say where it put a record";
        return wrong("receipts.store", store, problem);
    }
    if receipts.store == ReceiptStore::Table && config.is_exactly_once() {
        let problem = "with delivery.mode = \"exactly-once\", receipts have to be in the \
                       transactions of their events, which the table is not: set \"topic\"";
        return wrong("receipts.store", store, problem);
    }
    let topic = config.receipt_topic();
    for (other, role) in [
        (config.dead_letter_topic(), "is the dead-letter topic as well"),
        (config.position_topic(), "is the topic of positions as well"),
    ] {
        if receipts.store == ReceiptStore::Topic && topic == other {
            return wrong("receipts.topic", quoted(&topic), role);
        }
    }
    Ok(())
}
