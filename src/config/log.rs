use serde::{Deserialize, Serialize};

/// The section `[log]`.
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
    /// What failed.
    Error,
    /// What is being retried or looks wrong.
    Warn,
    /// What changed: started, running, drained.
    #[default]
    Info,
    /// What went on in between, librdkafka's own lines included.
    Debug,
    /// Every batch.
    Trace,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Terminal format on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Terminal,
}
