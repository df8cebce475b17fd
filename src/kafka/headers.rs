//! Converts a record's headers into librdkafka's.

use rdkafka::message::{Header, OwnedHeaders};

use crate::record::Headers;

/// Copies headers for librdkafka.
pub(crate) fn owned_headers(headers: &Headers) -> OwnedHeaders {
    let all = OwnedHeaders::new_with_capacity(headers.len());
    headers
        .iter()
        .fold(all, |all, (key, value)| all.insert(Header { key, value: value.as_deref() }))
}
