use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

#[cfg(feature = "cli")]
use documented::DocumentedFields;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Short enough to type, too long to guess over HTTP.
pub(crate) const SHORTEST_TOKEN: usize = 16;

/// The section `[http]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "cli", derive(DocumentedFields))]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The address that both ports listen on; probes from outside, as in a container, need `0.0.0.0`.
    pub address: IpAddr,
    /// Port of `/healthz` and `/readyz`; not served when not set.
    pub health_port: Option<u16>,
    /// Port of `/metrics` and `/status.json`, which may be the same; not served when not set.
    pub metrics_port: Option<u16>,
    /// The status page at `/` of the metrics port: see docs/status-page.md.
    pub page: bool,
    /// What the page's controls (pause, resume, redrive) ask for, at least 16 characters; without a
    /// token they are off.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub token: Option<SecretString>,
    /// A file with that token, in place of `http.token`.
    pub token_file: Option<PathBuf>,
    /// How long nothing may move, though there is something to do, before `/healthz` fails.
    #[serde(with = "humantime_serde")]
    pub stuck_after: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            // What is told here is for the operator: nobody else reaches it unasked.
            address: Ipv4Addr::LOCALHOST.into(),
            health_port: None,
            metrics_port: None,
            page: true,
            token: None,
            token_file: None,
            // Longer than a restart of PostgreSQL or a broker takes.
            stuck_after: Duration::from_secs(60),
        }
    }
}

impl HttpConfig {
    /// The token, from where it is; none when none is set.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a file that can't be read, or a token that is too short.
    pub(crate) fn control_token(&self) -> Result<Option<SecretString>> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("cannot read http.token_file {}", path.display());
            Error::new(ErrorKind::Config, what).caused_by(error)
        })?;
        let token = SecretString::from(text.trim());
        if !is_token(token.expose_secret()) {
            let what = format!("http.token_file {} has no usable token", path.display());
            return Err(Error::new(ErrorKind::Config, what).remedy(EXPECTED_TOKEN));
        }
        Ok(Some(token))
    }
}

pub(crate) const EXPECTED_TOKEN: &str =
    "expected at least 16 characters of ASCII, no spaces, as `openssl rand -hex 16` prints them";

/// What a header can carry as it is.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() >= SHORTEST_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<Option<SecretString>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, text).expect("written");
        HttpConfig { token_file: Some(path), ..HttpConfig::default() }.control_token()
    }

    #[test]
    fn a_file_has_the_token_and_a_line_end() {
        let token = of_file("0123456789abcdef\n").expect("a token").expect("one");
        assert_eq!(token.expose_secret(), "0123456789abcdef");
    }

    #[test]
    fn an_empty_file_is_no_open_door() {
        for text in ["", "\n", "short", "0123456789abcdef 0123"] {
            let error = of_file(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        let missing = HttpConfig { token_file: Some("/nowhere".into()), ..HttpConfig::default() };
        assert!(missing.control_token().expect_err("no file").to_string().contains("/nowhere"));
    }
}
