//! The section `[pipeline]`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The section `[pipeline]`: memory, restarts and shutdown.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PipelineConfig {
    /// Maximum bytes of events between the WAL and Kafka's acknowledgement.
    #[serde(serialize_with = "super::size::serialize")]
    pub window: ByteSize,
    /// Maximum bytes of one batch.
    #[serde(serialize_with = "super::size::serialize")]
    pub batch: ByteSize,
    /// First pause before a failed actor is restarted.
    #[serde(with = "humantime_serde")]
    pub restart_backoff: Duration,
    /// Longest pause before a failed actor is restarted.
    #[serde(with = "humantime_serde")]
    pub restart_backoff_max: Duration,
    /// Time for which PostgreSQL and Kafka may be unreachable at the first start; `0s`
    /// waits for ever.
    #[serde(with = "humantime_serde")]
    pub startup_timeout: Duration,
    /// Time limit for delivering events in flight when the relay stops.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        PipelineConfig {
            window: ByteSize::mib(16),
            batch: ByteSize::kib(256),
            restart_backoff: Duration::from_millis(100),
            restart_backoff_max: Duration::from_secs(10),
            startup_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}
