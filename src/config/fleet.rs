//! The section `[fleet]`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The section `[fleet]`: several pipelines in one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FleetConfig {
    /// Folder with a file `NAME.toml` for each pipeline, whose settings override all others: see
    /// docs/fleet.md. With it, `factlib run` runs these pipelines.
    pub pipelines: Option<PathBuf>,
    /// Interval of looking for changed files in that folder; `0s`: only at SIGHUP.
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
    /// Pause before a pipeline that ended with an error is started again.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
    /// `/healthz` and `/readyz` fail when `all` pipelines fail, or when `any` does.
    pub unhealthy_when: UnhealthyWhen,
}

/// Pipelines that have to fail before the process counts as unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnhealthyWhen {
    /// All of them: the others would suffer from a restart because of one.
    #[default]
    All,
    /// Any of them.
    Any,
}

impl Default for FleetConfig {
    fn default() -> Self {
        FleetConfig {
            pipelines: None,
            check_interval: Duration::from_secs(5),
            retry_after: Duration::from_secs(30),
            unhealthy_when: UnhealthyWhen::All,
        }
    }
}
