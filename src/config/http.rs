//! The section `[http]`.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Minimum length of a token: short enough to type, too long to guess over HTTP.
pub(crate) const MIN_TOKEN_LENGTH: usize = 16;

/// The section `[http]`: health, metrics and the status page.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Address that both ports listen on; probes from outside, as in a container, need
    /// `0.0.0.0`.
    pub address: IpAddr,
    /// Port of `/healthz` and `/readyz`; not set: not served.
    pub health_port: Option<u16>,
    /// Port of `/metrics` and `/status.json`; may be the same as the health port; not set:
    /// not served.
    pub metrics_port: Option<u16>,
    /// Serve the status page at `/` of the metrics port: see docs/status-page.md.
    pub page: bool,
    /// Token for the page's controls (pause, resume, redrive), at least 16 characters;
    /// without it they are off.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub token: Option<SecretString>,
    /// Time without progress, although there is work, after which `/healthz` fails.
    #[serde(with = "humantime_serde")]
    pub stuck_after: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            // The answers are for the operator; others reach them only if configured.
            address: Ipv4Addr::LOCALHOST.into(),
            health_port: None,
            metrics_port: None,
            page: true,
            token: None,
            // Longer than a restart of PostgreSQL or a broker takes.
            stuck_after: Duration::from_secs(60),
        }
    }
}

pub(crate) const EXPECTED_TOKEN: &str =
    "expected at least 16 characters of ASCII, no spaces, as `openssl rand -hex 16` prints them";

/// True if the text is long enough and safe in an HTTP header.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() >= MIN_TOKEN_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_or_blank_text_is_not_a_token() {
        assert!(is_token("0123456789abcdef"));
        for text in ["", "\n", "short", "0123456789abcdef 0123", "0123456789abcdef\n"] {
            assert!(!is_token(text), "{text:?}");
        }
    }
}
