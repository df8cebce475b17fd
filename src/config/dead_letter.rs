//! The section `[dead_letter]`.

use serde::{Deserialize, Serialize};

/// The section `[dead_letter]`: handling of events that can never be delivered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadLetterConfig {
    /// Effect on an event that Kafka refuses for good, that is not an OutboxEvent, or that
    /// has no legal topic: it is parked in the dead-letter topic and later events flow; it and
    /// the later events of its aggregate are held in a table and other aggregates flow; the
    /// relay stops; or it is retried for ever and later events wait.
    pub policy: RefusalPolicy,
    /// Dead-letter topic; default: `{topic_prefix}.dead-letter`.
    pub topic: Option<String>,
    /// Maximum number of events in `factlib.held_events` with the policy `hold-aggregate`. At the
    /// limit, the position stops until lines were redriven or dropped; the last events that are written
    /// together may go beyond it.
    pub held_limit: u64,
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        DeadLetterConfig { policy: RefusalPolicy::default(), topic: None, held_limit: 100_000 }
    }
}

/// Handling of an event that can never be delivered; it is never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalPolicy {
    /// Parks it in the dead-letter topic and counts it as done.
    #[default]
    DeadLetter,
    /// Holds it and all later events of its aggregate in the table `factlib.held_events`, in order,
    /// until they are redriven; other aggregates flow.
    HoldAggregate,
    /// Stops the pipeline with the error.
    Stop,
    /// Retries it for ever while later events wait.
    Block,
}

impl RefusalPolicy {
    /// True if an event that can't be delivered is kept in a table or the dead-letter topic, so that
    /// the position moves on.
    pub(crate) fn parks(self) -> bool {
        matches!(self, RefusalPolicy::DeadLetter | RefusalPolicy::HoldAggregate)
    }
}
