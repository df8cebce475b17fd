//! How secrets are shown: not at all.

use secrecy::SecretString;
use serde::Serializer;

/// What stands in a secret's place.
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
