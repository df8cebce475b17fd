//! Redacts secrets when the configuration is shown.

use secrecy::SecretString;
use serde::Serializer;

/// Text shown instead of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

pub(crate) fn redacted<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(REDACTED)
}

pub(crate) fn redacted_option<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => redacted(secret, serializer),
        None => serializer.serialize_none(),
    }
}
