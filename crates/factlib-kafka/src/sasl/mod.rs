//! Logging in with SASL: the mechanisms, and the exchange on a connection.
//!
//! A mechanism asks its source for the secrets each time that it logs in, so what was renewed
//! since is used. Where a broker limits a session (KIP-368), the owner of a connection logs in
//! again on it before the session ends.

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

/// The beginning of an exchange.
pub type Beginning<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Exchange>>> + Send + 'a>>;

/// A mechanism, and what it needs to log in.
pub trait Login: Send + Sync + 'static {
    /// Its name, as brokers know it.
    fn mechanism(&self) -> &'static str;

    /// An exchange, made anew for each login, with the secrets as they are then.
    fn begin(&self) -> Beginning<'_>;
}

/// One login.
pub trait Exchange: Send {
    /// The next message, to what the broker said last; nothing was said before the first. None
    /// where the broker's last word is good and nothing more is to be said.
    ///
    /// # Errors
    /// The broker said what it must not.
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

/// Gives user and password at each login; a file may have new ones.
pub trait CredentialSource: Send + Sync + 'static {
    /// The credentials to use now.
    ///
    /// # Errors
    /// They can't be had; the login fails, and is tried again.
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

/// PLAIN: user and password as they are, for encrypted connections.
#[derive(Clone)]
pub struct Plain(Arc<dyn CredentialSource>);

impl Plain {
    /// Logs in as this user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Plain::from_source(Credentials { user: user.into(), password: password.into() })
    }

    /// Logs in with what the source has at that time.
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

/// Says one thing.
struct Once(Option<Vec<u8>>);

impl Exchange for Once {
    fn next(&mut self, _: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.take())
    }
}

/// Logs in on a connection, where the settings say how; returns how long the session lasts, if
/// the broker limits it. Nothing else may be sent meanwhile.
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
        format!("{} takes {} and not {mechanism}", connection.address, offered.join(", "))
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
