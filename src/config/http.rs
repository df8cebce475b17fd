use std::net::{IpAddr, Ipv4Addr};

#[cfg(feature = "cli")]
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// The section `[http]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "cli", derive(DocumentedFields))]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The address that both ports listen on.
    pub address: IpAddr,
    /// Port of `/healthz` and `/readyz`; not served when not set.
    pub health_port: Option<u16>,
    /// Port of `/metrics`, which may be the same; not served when not set.
    pub metrics_port: Option<u16>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        // Probes and scrapers come from outside the container.
        HttpConfig { address: Ipv4Addr::UNSPECIFIED.into(), health_port: None, metrics_port: None }
    }
}
