//! Logging in with SASL: the mechanisms, and the exchange on a connection.
//!
//! A mechanism fetches its secrets from the source for each login, so renewed secrets take effect.
//! If a broker limits the session (KIP-368), the owner of a connection logs in again before the
//! session ends.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};

use crate::{
    connection::Connection,
    error::{Error, Result, check},
    settings::Settings,
};

mod oauth_bearer;
mod scram;

pub use self::{
    oauth_bearer::{FetchingToken, OauthBearer, Token, TokenSource},
    scram::{Hash, Scram},
};

/// Future that begins an exchange.
pub type Beginning<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Exchange>>> + Send + 'a>>;

/// A SASL mechanism with its credentials.
pub trait Login: Send + Sync + 'static {
    /// Returns the mechanism's name in the protocol.
    fn mechanism(&self) -> &'static str;

    /// Begins a new exchange with the present secrets.
    fn begin(&self) -> Beginning<'_>;
}

/// The messages of one login.
pub trait Exchange: Send {
    /// The next message to the broker; `said` is its last answer, empty at first. None if the
    /// login is complete.
    ///
    /// # Errors
    /// Returns an error if the broker's answer is invalid or refuses the login.
    fn next(&mut self, said: &[u8]) -> io::Result<Option<Vec<u8>>>;
}

/// User and password.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Provides user and password for each login, for example from a file that may change.
pub trait CredentialSource: Send + Sync + 'static {
    /// Returns the credentials to use now.
    ///
    /// # Errors
    /// Returns an error if the credentials are unavailable. The login then fails and is tried
    /// again.
    fn credentials(&self) -> io::Result<Credentials>;
}

impl CredentialSource for Credentials {
    fn credentials(&self) -> io::Result<Credentials> {
        Ok(self.clone())
    }
}

impl<F: Fn() -> io::Result<Credentials> + Send + Sync + 'static> CredentialSource for F {
    fn credentials(&self) -> io::Result<Credentials> {
        self()
    }
}

/// PLAIN: sends user and password in clear text, so it should be used only on encrypted
/// connections.
#[derive(Clone)]
pub struct Plain(Arc<dyn CredentialSource>);

impl Plain {
    /// Logs in as this user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Plain::from_source(Credentials { user: user.into(), password: password.into() })
    }

    /// Logs in with credentials that the source provides for each login.
    pub fn from_source(source: impl CredentialSource) -> Self {
        Plain(Arc::new(source))
    }
}

impl Login for Plain {
    fn mechanism(&self) -> &'static str {
        "PLAIN"
    }

    fn begin(&self) -> Beginning<'_> {
        Box::pin(async {
            let Credentials { user, password } = self.0.credentials()?;
            let message = format!("\0{user}\0{password}").into_bytes();
            Ok(Box::new(Once(Some(message))) as Box<dyn Exchange>)
        })
    }
}

/// An exchange with a single message.
struct Once(Option<Vec<u8>>);

impl Exchange for Once {
    fn next(&mut self, _: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.take())
    }
}

/// Logs in on a connection if the settings have a login, and returns the lifetime of the session
/// if the broker limits it. Nothing else may be sent meanwhile.
pub(crate) async fn log_in(
    connection: &Connection,
    settings: &Settings,
) -> Result<Option<Duration>> {
    let Some(login) = &settings.login else { return Ok(None) };
    let mechanism = login.mechanism();
    let failed = |source: io::Error| Error::Login {
        address: connection.address.clone(),
        mechanism,
        source: Arc::new(source),
    };
    let handshake =
        SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let answer = connection.call(&handshake, 1).await?;
    check(answer.error_code, None, || {
        let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.to_string()).collect();
        format!("{} does not accept {mechanism}, only {}", connection.address, offered.join(", "))
    })?;
    let mut exchange = login.begin().await.map_err(failed)?;
    let (mut said, mut lifetime_ms) = (Bytes::new(), 0);
    while let Some(message) = exchange.next(&said).map_err(failed)? {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let answer = connection.call(&request, 2).await?;
        check(answer.error_code, answer.error_message.as_deref(), || {
            format!("{} refuses the login with {mechanism}", connection.address)
        })?;
        (said, lifetime_ms) = (answer.auth_bytes, answer.session_lifetime_ms);
    }
    Ok(u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis))
}
