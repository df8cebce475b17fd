//! Asks a relay over HTTP: finds the address of an endpoint, and returns its answer.

use std::{net::IpAddr, time::Duration};

use factlib::{Error, ErrorKind, Result, config::Config};

/// Timeout of a request; the relay answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Health,
    Status,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Endpoint::Health => "/healthz",
            Endpoint::Status => "/status.json",
        }
    }

    /// The setting that serves it.
    fn setting(self) -> &'static str {
        match self {
            Endpoint::Health => "http.health_port",
            Endpoint::Status => "http.metrics_port",
        }
    }

    fn port(self, config: &Config) -> Option<u16> {
        match self {
            Endpoint::Health => config.http.health_port,
            Endpoint::Status => config.http.metrics_port,
        }
    }
}

/// The URL of an endpoint, below `base` or else at the configured address.
pub fn url(base: Option<&str>, config: &Config, endpoint: Endpoint) -> Result<String> {
    let path = endpoint.path();
    if let Some(base) = base {
        let base = base.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        return Ok(if base.ends_with(path) { base } else { base + path });
    }
    let Some(port) = endpoint.port(config) else {
        let setting = endpoint.setting();
        let failure = format!("{setting} is not set, so the relay's address is unknown");
        return Err(Error::new(ErrorKind::Config, failure)
            .remedy("set it as the relay has it, or give --url http://HOST:PORT"));
    };
    let address = match config.http.address {
        any if any.is_unspecified() && any.is_ipv4() => "127.0.0.1".into(),
        any if any.is_unspecified() => "[::1]".into(),
        IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    Ok(format!("http://{address}:{port}{path}"))
}

/// The HTTP status and body of an answer. Only health may be refused.
pub fn get(url: &str, endpoint: Endpoint) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(endpoint != Endpoint::Health)
        .build()
        .into();
    let answer = agent.get(url).call().and_then(|mut answer| {
        let code = answer.status().as_u16();
        Ok((code, answer.body_mut().read_to_string()?))
    });
    answer.map_err(|error| {
        failed(format!("no relay answers at {url}"))
            .caused_by(error)
            .remedy(format!("is it running, with {} set?", endpoint.setting()))
    })
}

/// The error of an answer that no relay gives.
pub fn not_a_relay(url: &str, endpoint: Endpoint) -> Error {
    let setting = endpoint.setting();
    failed(format!("{url} is not the status of a relay"))
        .remedy(format!("another program listens there: check --url, http.address and {setting}"))
}

/// Exit code 1: neither server is at fault, nor the configuration.
pub fn failed(failure: String) -> Error {
    Error::new(ErrorKind::ActorFailed, failure)
}
