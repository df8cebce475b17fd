use serde::{Deserialize, Serialize};

/// The section `[log]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// How a line is written; `auto` is `terminal` on a terminal and `json` elsewhere.
    pub format: LogFormat,
    /// The name under which this relay logs, the key `service` of every line.
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
