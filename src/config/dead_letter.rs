//! The section `[dead_letter]`.

use serde::{Deserialize, Serialize};

/// The section `[dead_letter]`: handling of events that can never be delivered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadLetterConfig {
    /// Effect on an event that Kafka refuses for good, that is not an OutboxEvent, or that
    /// has no legal topic: it is parked in the dead-letter topic and later events flow; the
    /// relay stops; or it is retried for ever and later events wait.
    pub policy: RefusalPolicy,
    /// Dead-letter topic; default: `{topic_prefix}.dead-letter`.
    pub topic: Option<String>,
}

/// Handling of an event that can never be delivered; it is never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalPolicy {
    /// Parks it in the dead-letter topic and counts it as done.
    #[default]
    DeadLetter,
    /// Stops the pipeline with the error.
    Stop,
    /// Retries it for ever while later events wait.
    Block,
}
