//! The hosts of a connection string, each with its port.

use std::{fmt, net::IpAddr, path::Path};

use crate::{
    Result,
    settings::{Settings, invalid},
};

/// A server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// A host name, an IP address, or the directory of a Unix socket.
    pub name: String,
    /// Address to connect to, instead of resolving the name.
    pub hostaddr: Option<IpAddr>,
    pub port: u16,
}

impl Host {
    /// The name, or the address if it has none.
    pub fn address(&self) -> String {
        match self.hostaddr {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ => self.name.clone(),
        }
    }

    pub fn is_unix(&self) -> bool {
        self.hostaddr.is_none() && self.name.starts_with('/')
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hostaddr {
            Some(address) if self.name.is_empty() => write!(f, "{address}:{}", self.port),
            _ if self.name.contains(':') => write!(f, "[{}]:{}", self.name, self.port),
            _ => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// Pairs hosts, addresses and ports as libpq does.
pub(super) fn hosts(settings: &Settings<'_>) -> Result<Vec<Host>> {
    let list = |keyword| {
        let text = settings.text(keyword).unwrap_or_default();
        text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>()
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len());
    for (keyword, given) in [("host", &names), ("hostaddr", &addresses), ("port", &ports)] {
        let is_empty = given.iter().all(String::is_empty) && given.len() == 1;
        let is_shared = keyword == "port" && given.len() == 1;
        if given.len() != count && !is_empty && !is_shared {
            return Err(invalid(
                keyword,
                &format!("lists {} items for {count} hosts", given.len()),
            ));
        }
    }
    (0..count)
        .map(|at| {
            let item = |items: &[String]| {
                items
                    .get(at)
                    .or(items.first().filter(|_| items.len() == 1))
                    .cloned()
                    .unwrap_or_default()
            };
            let hostaddr = match item(&addresses) {
                none if none.is_empty() => None,
                text => Some(text.parse().map_err(|error: std::net::AddrParseError| {
                    invalid("hostaddr", "must be an IPv4 or IPv6 address").caused_by(error)
                })?),
            };
            let port = match item(&ports) {
                none if none.is_empty() => 5432,
                text => match text.parse() {
                    Ok(port) if port != 0 => port,
                    _ => return Err(invalid("port", "must be a number from 1 to 65535")),
                },
            };
            let name = match item(&names) {
                none if none.is_empty() && hostaddr.is_none() => default_socket_directory(),
                name if name.starts_with('@') => {
                    return Err(invalid(
                        "host",
                        "in the abstract socket namespace is not supported",
                    ));
                }
                // libpq takes the end of a password with an @ for a host.
                name if name.contains('@') => {
                    return Err(invalid("host", "has an @: write an @ in a password as %40"));
                }
                name => name,
            };
            Ok(Host { name, hostaddr, port })
        })
        .collect()
}

/// Returns the socket directory of distributions if it exists, otherwise PostgreSQL's default.
fn default_socket_directory() -> String {
    let packaged = "/var/run/postgresql";
    if Path::new(packaged).is_dir() { packaged } else { "/tmp" }.into()
}
