//! The section `[retention]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `[retention]`: removal of old rows that are delivered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetentionConfig {
    /// Remove delivered rows that are older than this; not set: none.
    #[serde(with = "humantime_serde")]
    pub after: Option<Duration>,
    /// Tables, `schema.table` or a pattern as in `outbox.table`. Default: those of `[[outbox]]`
    /// with the preset factlib, or the archive `public.outbox_events` if the relay reads messages.
    pub tables: Vec<String>,
    /// Maximum number of rows that one statement removes.
    pub batch: u32,
    /// Interval of looking for old rows.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        RetentionConfig {
            after: None,
            tables: Vec::new(),
            batch: 1_000,
            interval: Duration::from_secs(60),
        }
    }
}
