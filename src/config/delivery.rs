//! The section `[delivery]`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The section `[delivery]`: delivery guarantee and Kafka transactions.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeliveryConfig {
    /// With exactly-once, events and position are written in one Kafka transaction, and a
    /// consumer with `isolation.level=read_committed` sees each event once, whatever
    /// crashes: see docs/exactly-once.md.
    pub mode: DeliveryMode,
    /// Minimum time between two commits; a transaction is committed when it has all events
    /// that were read.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Maximum time a transaction stays open while more events are read.
    #[serde(with = "humantime_serde")]
    pub max_interval: Duration,
    /// Maximum bytes of events in a transaction.
    #[serde(serialize_with = "super::size::serialize")]
    pub max_bytes: ByteSize,
    /// Time after which Kafka aborts an open transaction, for example of a relay that is
    /// gone; its events are sent again.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// Compacted topic of the positions; default: `{topic_prefix}.checkpoints`.
    pub position_topic: Option<String>,
}

/// Delivery guarantee after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeliveryMode {
    /// Events in flight may be delivered twice.
    #[default]
    AtLeastOnce,
    /// Each event is delivered once to consumers with `read_committed`.
    ExactlyOnce,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        DeliveryConfig {
            mode: DeliveryMode::AtLeastOnce,
            interval: Duration::from_millis(20),
            max_interval: Duration::from_millis(200),
            max_bytes: ByteSize::mib(64),
            transaction_timeout: Duration::from_secs(60),
            position_topic: None,
        }
    }
}
