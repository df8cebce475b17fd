//! Logging in with SASL: the exchange, and what a mechanism says in it.

use bytes::Bytes;
use kafka_protocol::{
    messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};

use crate::{
    connection::Connection,
    error::{Result, check},
    settings::Settings,
};

mod scram;

pub use self::scram::{Hash, Scram};

/// A mechanism, and what it needs to log in.
pub trait Login: Send + Sync + 'static {
    /// Its name, as brokers know it.
    fn mechanism(&self) -> &'static str;

    /// An exchange, made anew for each connection, with the secrets as they are then.
    fn begin(&self) -> std::io::Result<Box<dyn Exchange>>;
}

/// One login.
pub trait Exchange: Send {
    /// The next message, to what the broker said last; nothing was said before the first. None
    /// where the broker's last word is good and nothing more is to be said.
    ///
    /// # Errors
    /// The broker said what it must not.
    fn next(&mut self, said: &[u8]) -> std::io::Result<Option<Vec<u8>>>;
}

/// PLAIN: user and password as they are, for encrypted connections.
#[derive(Clone)]
pub struct Plain {
    user: String,
    password: String,
}

impl Plain {
    /// Logs in as this user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Plain { user: user.into(), password: password.into() }
    }
}

impl Login for Plain {
    fn mechanism(&self) -> &'static str {
        "PLAIN"
    }

    fn begin(&self) -> std::io::Result<Box<dyn Exchange>> {
        Ok(Box::new(Once(Some(format!("\0{}\0{}", self.user, self.password).into_bytes()))))
    }
}

/// Says one thing.
struct Once(Option<Vec<u8>>);

impl Exchange for Once {
    fn next(&mut self, _: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.take())
    }
}

/// Logs in on a new connection, where the settings say how.
pub(crate) async fn log_in(connection: &Connection, settings: &Settings) -> Result<()> {
    let Some(login) = &settings.login else { return Ok(()) };
    let mechanism = login.mechanism();
    let failed = |source: std::io::Error| crate::Error::Connection {
        address: connection.address.clone(),
        source: std::sync::Arc::new(source),
    };
    let handshake =
        SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let answer = connection.call(&handshake, 1).await?;
    check(answer.error_code, None, || {
        let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.to_string()).collect();
        format!("{} takes {} and not {mechanism}", connection.address, offered.join(", "))
    })?;
    let mut exchange = login.begin().map_err(failed)?;
    let mut said = Bytes::new();
    while let Some(message) = exchange.next(&said).map_err(failed)? {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let answer = connection.call(&request, 2).await?;
        check(answer.error_code, answer.error_message.as_deref(), || {
            format!("{} refuses the login with {mechanism}", connection.address)
        })?;
        said = answer.auth_bytes;
    }
    Ok(())
}
