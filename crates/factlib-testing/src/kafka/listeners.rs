//! Further listeners of a broker: their settings, and the addresses at which they are bound.

use crate::{Result, ports::free_port, proxy::Proxy};

/// Settings of one more listener for clients, the same on every broker.
#[derive(Debug)]
pub(super) struct ListenerSettings {
    pub name: String,
    pub protocol: String,
    pub properties: Vec<(String, String)>,
    pub advertised: Advertised,
}

/// The address that a listener advertises to clients.
#[derive(Debug)]
pub(super) enum Advertised {
    Own,
    /// The address of a proxy that belongs to this listener.
    Proxy,
    Other(String),
}

/// A listener of one broker, with its addresses.
pub(super) struct BoundListener<'a> {
    pub settings: &'a ListenerSettings,
    pub address: String,
    pub advertised: String,
    proxy: Option<Proxy>,
}

/// A listener of a broker that runs.
#[derive(Debug)]
pub(super) struct Listener {
    /// The address to which clients connect first.
    pub address: String,
    pub proxy: Option<Proxy>,
}

impl ListenerSettings {
    /// Gives the listener a free port and, where it advertises one, a proxy.
    pub(super) async fn bind(&self) -> Result<BoundListener<'_>> {
        let port = free_port()?;
        let proxy = match self.advertised {
            Advertised::Proxy => Some(Proxy::start(([127, 0, 0, 1], port).into()).await?),
            _ => None,
        };
        let advertised = match (&self.advertised, &proxy) {
            (Advertised::Other(address), _) => address.clone(),
            (_, Some(proxy)) => proxy.address().to_string(),
            (_, None) => format!("localhost:{port}"),
        };
        Ok(BoundListener {
            settings: self,
            address: format!("127.0.0.1:{port}"),
            advertised,
            proxy,
        })
    }

    /// Its properties, with the prefix that names the listener.
    pub(super) fn prefixed(&self) -> impl Iterator<Item = (String, &String)> {
        let prefix = format!("listener.name.{}.", self.name.to_lowercase());
        self.properties.iter().map(move |(key, value)| (format!("{prefix}{key}"), value))
    }
}

impl BoundListener<'_> {
    /// The name of the listener, and the address at which clients reach it.
    pub(super) fn into_entry(self) -> (String, Listener) {
        // Nothing answers at the other address.
        let is_other = matches!(self.settings.advertised, Advertised::Other(_));
        let address = if is_other { self.address } else { self.advertised };
        (self.settings.name.clone(), Listener { address, proxy: self.proxy })
    }
}
