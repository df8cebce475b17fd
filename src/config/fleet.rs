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
    /// Databases of the server of `postgres.url`, each an exact name, a glob or `/regex/`: `factlib
    /// run` runs a pipeline for each, also for those that are created later.
    pub databases: Vec<String>,
    /// Interval of looking for changed files and new databases; `0s`: only at SIGHUP.
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
    /// Pause before a pipeline that ended with an error is started again.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
    /// Name of a Kafka consumer group: all instances of it share the pipelines. Without one, this process
    /// runs all of them.
    pub group: Option<String>,
    /// Name of this instance, as people see it; by default, the name of the machine.
    pub instance: Option<String>,
    /// Most pipelines that this instance runs, if they are shared; `0`: no limit.
    pub max_pipelines: usize,
    /// Time without a sign of an instance after which others take over its pipelines. The brokers'
    /// `group.min.session.timeout.ms` (6 s) is the least that they take.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// When this instance stops: time for the others to get ready for its pipelines, after which it stops
    /// those that are left; `0s`: it stops all at once.
    #[serde(with = "humantime_serde")]
    pub handover_timeout: Duration,
    /// `/healthz` and `/readyz` fail when `all` pipelines fail, or when `any` does.
    pub unhealthy_when: UnhealthyWhen,
}

impl FleetConfig {
    /// True if there are several pipelines, or may be.
    pub fn is_set(&self) -> bool {
        self.pipelines.is_some() || !self.databases.is_empty()
    }

    /// The name of this instance.
    pub(crate) fn instance_name(&self) -> String {
        let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.instance.clone().unwrap_or_else(machine)
    }

    /// The most pipelines that this instance runs; none: no limit.
    pub(crate) fn limit(&self) -> Option<usize> {
        Some(self.max_pipelines).filter(|max| *max > 0)
    }

    /// True if a database of this name has a pipeline.
    #[cfg(feature = "cli")]
    pub(crate) fn has_database(&self, name: &str) -> bool {
        use crate::routing::{Captures, Pattern};

        let matches = |pattern: &String| {
            Pattern::parse(pattern)
                .is_ok_and(|pattern| pattern.matches(name, &mut Captures::default()))
        };
        self.databases.iter().any(matches)
    }
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
            databases: Vec::new(),
            check_interval: Duration::from_secs(5),
            retry_after: Duration::from_secs(30),
            group: None,
            instance: None,
            max_pipelines: 0,
            session_timeout: Duration::from_secs(10),
            handover_timeout: Duration::from_secs(15),
            unhealthy_when: UnhealthyWhen::All,
        }
    }
}
