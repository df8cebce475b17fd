//! Every setting, one file a section. [`Config`] is plain data with defaults;
//! where values come from (file, environment, flags) is in [`load`].

mod checkpoint;
mod kafka;
#[cfg(feature = "cli")]
pub mod load;
mod log;
mod pipeline;
mod postgres;

use serde::{Deserialize, Serialize};

pub use self::{
    checkpoint::{CheckpointConfig, StoreKind},
    kafka::{Compression, KafkaConfig, TopicCreation},
    log::{LogConfig, LogFormat, LogLevel},
    pipeline::PipelineConfig,
    postgres::PostgresConfig,
};

/// The whole configuration of a relay.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where facts come from.
    pub postgres: PostgresConfig,
    /// Where they go.
    pub kafka: KafkaConfig,
    /// Where the position is kept.
    pub checkpoint: CheckpointConfig,
    /// Memory, retries, stopping.
    pub pipeline: PipelineConfig,
    /// What the binary logs.
    pub log: LogConfig,
}

fn redacted<S: serde::Serializer>(
    _: &secrecy::SecretString,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("[redacted]")
}

fn redacted_option<S: serde::Serializer>(
    secret: &Option<secrecy::SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.is_some() { "[redacted]" } else { "" })
}
