use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `[retention]`: rows that are delivered and old are removed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetentionConfig {
    /// Rows that are delivered and older than this are removed; none are when not set.
    #[serde(with = "humantime_serde")]
    pub after: Option<Duration>,
    /// The tables, `schema.table`. When empty, those of `[[outbox]]` with the preset factlib, or
    /// the archive `public.outbox_events` where the relay reads messages.
    pub tables: Vec<String>,
    /// The most rows that one statement removes.
    pub batch: u32,
    /// How often old rows are looked for.
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
