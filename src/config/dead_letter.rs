use serde::{Deserialize, Serialize};

/// The section `[dead_letter]`: what becomes of events that can never be delivered.
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

/// What becomes of an event that can never be delivered; it is never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalPolicy {
    /// It goes to the dead-letter topic and counts as done.
    #[default]
    DeadLetter,
    /// The pipeline ends with the error.
    Stop,
    /// It is tried again for ever; what is behind it waits.
    Block,
}
