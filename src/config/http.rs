use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

#[cfg(feature = "cli")]
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

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
            // Longer than a restart of PostgreSQL or a broker takes.
            stuck_after: Duration::from_secs(60),
        }
    }
}
