//! The section `[log]`.

use serde::{Deserialize, Serialize};

/// The section `[log]`: log lines of the binary.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// Least severe level that is logged.
    pub level: LogLevel,
    /// Format of log lines; `auto` is `terminal` on a terminal and `json` elsewhere.
    pub format: LogFormat,
    /// Name of this relay in the log, the key `service` of every line.
    pub service: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            level: LogLevel::default(),
            format: LogFormat::default(),
            service: "factlib".into(),
        }
    }
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Failures.
    Error,
    /// Retries, and what looks wrong.
    Warn,
    /// Changes of state: started, running, drained.
    #[default]
    Info,
    /// Details.
    Debug,
    /// Every batch.
    Trace,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Terminal format on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Terminal,
}
