//! Listens on the ports of health and metrics.

use std::io;

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::{Condition, from_fn},
    web::ServiceConfig,
};

use super::page::names::local_only;
use crate::{Error, ErrorKind, Result, config::HttpConfig};

/// What is served on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    Health,
    Metrics,
    Both,
}

impl Ports {
    pub fn health(self) -> bool {
        self != Ports::Metrics
    }

    pub fn metrics(self) -> bool {
        self != Ports::Health
    }
}

/// The HTTP servers; they end when this is dropped. Each port has one worker thread.
pub(crate) struct Servers(Vec<ServerHandle>);

impl Servers {
    /// Listens on the ports that are set, if any.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a port that can't be bound, with the reason.
    pub(super) fn start(
        http: &HttpConfig,
        configure: impl Fn(&mut ServiceConfig, Ports) + Clone + Send + 'static,
    ) -> Result<Self> {
        let mut servers = Servers(Vec::new());
        let (health, metrics) = (http.health_port, http.metrics_port);
        if let Some(port) = health {
            let ports = if metrics == health { Ports::Both } else { Ports::Health };
            servers.listen("http.health_port", http, port, ports, configure.clone())?;
        }
        if let Some(port) = metrics.filter(|_| metrics != health) {
            servers.listen("http.metrics_port", http, port, Ports::Metrics, configure)?;
        }
        Ok(servers)
    }

    fn listen(
        &mut self,
        setting: &str,
        http: &HttpConfig,
        port: u16,
        ports: Ports,
        configure: impl Fn(&mut ServiceConfig, Ports) + Clone + Send + 'static,
    ) -> Result<()> {
        let address = http.address;
        let app = move || {
            App::new()
                .wrap(Condition::new(address.is_loopback(), from_fn(local_only)))
                .configure(|app| configure(app, ports))
        };
        let server = HttpServer::new(app)
            .workers(1)
            .disable_signals()
            .bind((address, port))
            .map_err(|error| unavailable(setting, &format!("{address}:{port}"), error))?
            .run();
        self.0.push(server.handle());
        actix_rt::spawn(server);
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &self.0 {
            // This call stops the server; the future it returns would only wait for the end.
            drop(server.stop(false));
        }
    }
}

fn unavailable(setting: &str, address: &str, error: io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!("set {setting} to a port that is free"),
        io::ErrorKind::PermissionDenied => format!("set {setting} to a port above 1023"),
        _ => "set http.address to an address of this machine".into(),
    };
    let what = format!("cannot listen on {address} for {setting}");
    Error::new(ErrorKind::Config, what).caused_by(error).remedy(remedy)
}
