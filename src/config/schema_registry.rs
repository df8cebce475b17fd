//! The section `[schema_registry]`.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::format::SubjectStrategy;

/// The section `[schema_registry]`: the registry that holds the schemas of the formats
/// `confluent-…`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SchemaRegistryConfig {
    /// Schema registries with Confluent's API: `http(s)://host:port`, with a path if
    /// needed. If one does not answer, the next is asked.
    pub url: Vec<String>,
    /// User for basic authentication.
    pub username: Option<String>,
    /// Password for basic authentication.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub password: Option<SecretString>,
    /// PEM file of the registry's certificate authority, in addition to the system's.
    pub tls_ca: Option<PathBuf>,
    /// Naming of subjects: `{topic}-value`, `{schema}`, or `{topic}-{schema}`. A route's
    /// `subject` overrides it.
    pub subject: SubjectStrategy,
    /// Register factlib's own schemas if they are missing; otherwise the latest version of
    /// a subject is used, as for schemas of payloads.
    pub auto_register: bool,
    /// Time limit of one answer of the registry.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Time for which the latest version of a subject is cached; `0s` for ever.
    #[serde(with = "humantime_serde")]
    pub cache: Duration,
}

impl Default for SchemaRegistryConfig {
    fn default() -> Self {
        SchemaRegistryConfig {
            url: Vec::new(),
            username: None,
            password: None,
            tls_ca: None,
            subject: SubjectStrategy::default(),
            auto_register: true,
            timeout: Duration::from_secs(10),
            cache: Duration::from_secs(60),
        }
    }
}

impl SchemaRegistryConfig {
    /// The reason why formats with a schema are refused in this build.
    #[cfg(not(feature = "schema-registry"))]
    pub(crate) const NOT_BUILT: &str =
        "this factlib was built without the feature schema-registry, which the format needs";
}
