//! The section `[receipts]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `[receipts]`: records of where each event went, for `factlib trace`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ReceiptsConfig {
    /// Store of receipts, which say where each event went: none, a topic, or the table
    /// `factlib.receipts` in the database that is read, which exactly-once does not allow. See
    /// docs/receipts.md.
    pub store: ReceiptStore,
    /// Topic of the store `topic`; default: `{topic_prefix}.receipts`.
    pub topic: Option<String>,
    /// Age at which receipts are removed. For a topic it is set when the relay creates it.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

impl Default for ReceiptsConfig {
    fn default() -> Self {
        ReceiptsConfig {
            store: ReceiptStore::Off,
            topic: None,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// Store of receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ReceiptStore {
    /// None are kept.
    #[default]
    Off,
    /// A topic.
    Topic,
    /// The table `factlib.receipts` in the database that is read; not with exactly-once.
    Table,
}
