//! The section `[checkpoint]`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The section `[checkpoint]`: storage of the position.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CheckpointConfig {
    /// Store of the position.
    pub store: StoreKind,
    /// File of the store `file`.
    pub path: PathBuf,
    /// Minimum time between two saves while events flow; a crash repeats what was delivered
    /// since.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Minimum time between two saves while no events of this relay flow.
    #[serde(with = "humantime_serde")]
    pub idle_interval: Duration,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig {
            store: StoreKind::Postgres,
            path: "factlib.checkpoint".into(),
            interval: Duration::from_millis(200),
            idle_interval: Duration::from_secs(10),
        }
    }
}

/// Store of the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StoreKind {
    /// The table `factlib.checkpoints` in the database that is read.
    #[default]
    Postgres,
    /// A file.
    File,
    /// Memory only: each start begins at the slot's own position.
    Memory,
}
