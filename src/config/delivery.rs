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
    /// Standbys that must have flushed a transaction before its events are sent: names
    /// (`application_name`, or a physical slot), or a number of any; see docs/postgresql.md.
    pub wait_for_standbys: WaitForStandbys,
    /// Time after which a standby that stays behind is no longer waited for, until it has
    /// caught up; not set: it is waited for without a limit.
    #[serde(with = "humantime_serde")]
    pub standby_timeout: Option<Duration>,
    /// Send an event only when its transaction is visible to other sessions; `auto`: if the
    /// server has `synchronous_standby_names`.
    pub wait_for_visibility: WaitForVisibility,
}

/// Standbys that must have flushed a transaction before its events are sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum WaitForStandbys {
    /// That many of those that are connected.
    Any(u16),
    /// Each of these: the `application_name` of a connected standby, or a physical slot. If empty,
    /// none is waited for.
    Named(Vec<String>),
}

impl WaitForStandbys {
    /// Number of standbys that are waited for.
    pub fn count(&self) -> usize {
        match self {
            WaitForStandbys::Any(count) => usize::from(*count),
            WaitForStandbys::Named(names) => names.len(),
        }
    }
}

impl Default for WaitForStandbys {
    fn default() -> Self {
        WaitForStandbys::Named(Vec::new())
    }
}

/// Condition under which events wait until their transaction is visible to other sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WaitForVisibility {
    /// If the server has `synchronous_standby_names`: a commit is then decoded before its client
    /// gets an answer.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
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
            wait_for_standbys: WaitForStandbys::default(),
            standby_timeout: None,
            wait_for_visibility: WaitForVisibility::Auto,
        }
    }
}
