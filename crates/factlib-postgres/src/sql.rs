//! Connects ordinary clients by the same rules as replication connections.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    CancelToken, Client, SimpleQueryMessage, config,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

use super::{
    connect_info::{ConnectInfo, Host},
    connector::{self, LoginTarget, Startup},
    require_auth::{AUTH_REMEDY, Method, RequireAuth},
    settings::{self, TargetSessionAttrs},
    stream::Stream,
};
use crate::{Error, ErrorKind, Notice, Result, error::postgres_error};

/// Connects an ordinary client within `timeout`. Its connection ends when the client is dropped.
///
/// # Errors
/// The reasons why no host accepted the connection.
pub async fn connect(info: &ConnectInfo, timeout: Duration) -> Result<Client> {
    Ok(open(info, timeout).await?.0)
}

/// Connects as [`connect`] does, and also returns the host with the address that it is connected to.
pub(super) async fn open(info: &ConnectInfo, timeout: Duration) -> Result<(Client, Host)> {
    connector::connect(info, timeout, &SqlStartup { info }).await
}

/// Asks the server at `info` to cancel the running statement of the token's client. The server does
/// not answer, so the outcome is unknown.
pub(super) async fn cancel(
    info: &ConnectInfo,
    token: &CancelToken,
    timeout: Duration,
) -> Result<()> {
    connector::connect(info, timeout, &Cancel(token)).await
}

struct Cancel<'a>(&'a CancelToken);

impl Startup for Cancel<'_> {
    type Session = ();
    const NEEDS_PASSWORD: bool = false;

    async fn start(
        &self,
        stream: Stream,
        LoginTarget { host, .. }: &LoginTarget<'_>,
    ) -> Result<()> {
        // The server does not answer this request.
        let stream =
            GuardedStream { guard: LoginGuard::new(&stream, &RequireAuth::default()), stream };
        let message = || format!("cannot cancel a statement in PostgreSQL at {host}");
        let cancelling = self.0.cancel_query_raw(stream, Passthrough).await;
        cancelling.map_err(|error| postgres_error(message(), error))
    }
}

struct SqlStartup<'a> {
    info: &'a ConnectInfo,
}

impl Startup for SqlStartup<'_> {
    type Session = (Client, Host);

    async fn start(&self, stream: Stream, server: &LoginTarget<'_>) -> Result<(Client, Host)> {
        let host = server.host;
        let here = Host { hostaddr: stream.peer(), ..host.clone() };
        let message = format!("cannot log in to PostgreSQL at {host} as {}", self.info.user);
        let stream =
            GuardedStream { guard: LoginGuard::new(&stream, &self.info.require_auth), stream };
        let (client, connection) = self
            .config(server)
            .connect_raw(stream, Passthrough)
            .await
            .map_err(|error| postgres_error(message, error))?;
        let observer = self.info.observer();
        tokio::spawn(async move {
            // The user of the client gets an error of its own.
            if let Err(error) = connection.await {
                observer.notice(&Notice::ConnectionEnded { error: &error });
            }
        });
        check_target(&client, host, server.target).await?;
        Ok((client, here))
    }
}

impl SqlStartup<'_> {
    fn config(&self, server: &LoginTarget<'_>) -> config::Config {
        let info = self.info;
        let mut config = config::Config::new();
        config
            .user(&info.user)
            .dbname(&info.dbname)
            .application_name(info.application_name())
            // The stream is already encrypted or not; these make tokio-postgres take it as it is.
            .ssl_mode(config::SslMode::Require)
            .ssl_negotiation(config::SslNegotiation::Direct)
            .channel_binding(match info.channel_binding {
                settings::ChannelBinding::Disable => config::ChannelBinding::Disable,
                settings::ChannelBinding::Prefer => config::ChannelBinding::Prefer,
                settings::ChannelBinding::Require => config::ChannelBinding::Require,
            });
        if let Some(options) = &info.options {
            config.options(options);
        }
        if let Some(password) = &server.password {
            config.password(password.expose_secret());
        }
        config
    }
}

async fn check_target(client: &Client, host: &Host, target: TargetSessionAttrs) -> Result<()> {
    let Some((query, wanted)) = target.probe() else { return Ok(()) };
    let message = || format!("cannot ask PostgreSQL at {host} whether it is a primary");
    let answer =
        client.simple_query(query).await.map_err(|error| postgres_error(message(), error))?;
    let answer = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    if answer == Some(wanted) { Ok(()) } else { Err(target.mismatch(host)) }
}

/// Passes a stream through whose encryption is already settled.
struct Passthrough;

impl TlsConnect<GuardedStream> for Passthrough {
    type Stream = GuardedStream;
    type Error = Infallible;
    type Future = Ready<Result<GuardedStream, Infallible>>;

    fn connect(self, stream: GuardedStream) -> Self::Future {
        ready(Ok(stream))
    }
}

/// A stream whose first message is inspected.
struct GuardedStream {
    stream: Stream,
    guard: LoginGuard,
}

impl TlsStream for GuardedStream {
    fn channel_binding(&self) -> ChannelBinding {
        let binding = self.stream.tls().and_then(|tls| tls.channel_binding.clone());
        binding.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if result.is_ready() {
            this.guard.inspect(buf.filled().get(before..).unwrap_or_default())?;
        }
        result
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Inspects the server's first message, the request for authentication, before tokio-postgres does.
///
/// tokio-postgres would answer any request: it sends a password in clear over any connection, and
/// does not know `require_auth`.
struct LoginGuard {
    /// The message's first bytes; `None` once it was inspected.
    head: Option<Vec<u8>>,
    may_carry_a_password: bool,
    require_auth: RequireAuth,
}

impl LoginGuard {
    /// Type, length and code of an authentication request.
    const LENGTH: usize = 9;

    fn new(stream: &Stream, require_auth: &RequireAuth) -> Self {
        LoginGuard {
            head: Some(Vec::new()),
            may_carry_a_password: stream.may_carry_a_password(),
            require_auth: require_auth.clone(),
        }
    }

    fn inspect(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(head) = &mut self.head else { return Ok(()) };
        let missing = Self::LENGTH - head.len();
        head.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
        // Any other message is an error, or comes from a server that does not know the protocol.
        let [b'R', _, _, _, _, code @ ..] = head.as_slice() else {
            if head.first().is_some_and(|kind| *kind != b'R') {
                self.head = None;
            }
            return Ok(());
        };
        let Ok(code) = code.try_into().map(i32::from_be_bytes) else { return Ok(()) };
        self.head = None;
        let method = RequireAuth::method(code);
        let refused = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        if let Some(refusal) = method.and_then(|method| self.require_auth.refusal(method)) {
            return refused(format!("{refusal} ({AUTH_REMEDY})"));
        }
        if method == Some(Method::Password) && !self.may_carry_a_password {
            return refused(
                "the server asks for the password in clear, over a connection that is not encrypted \
                 (use sslmode=verify-full, or scram-sha-256 in pg_hba.conf)"
                    .into(),
            );
        }
        Ok(())
    }
}

impl TargetSessionAttrs {
    /// Returns the error for a server of another kind. It is transient: another host, or this one
    /// later, may match.
    pub(super) fn mismatch(self, host: &Host) -> Error {
        let message = format!("PostgreSQL at {host} is not what target_session_attrs asks for");
        let error = Error::new(ErrorKind::Unavailable, message);
        match self {
            TargetSessionAttrs::ReadWrite => error.with_remedy(
                "it is a standby, or its default_transaction_read_only is on, by itself or for \
                 this role or database",
            ),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(may_carry_a_password: bool) -> LoginGuard {
        let require_auth = RequireAuth::default();
        LoginGuard { head: Some(Vec::new()), may_carry_a_password, require_auth }
    }

    #[test]
    fn a_password_in_clear_is_refused_however_the_bytes_arrive() {
        let request = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
        for cut in 0..request.len() {
            let mut guard = guard(false);
            assert!(guard.inspect(&request[..cut]).is_ok());
            assert!(guard.inspect(&request[cut..]).is_err());
        }
        let mut safe = guard(true);
        assert!(safe.inspect(&request).is_ok());
        let mut scram = guard(false);
        assert!(scram.inspect(&[b'R', 0, 0, 0, 23, 0, 0, 0, 10]).is_ok());
        assert!(scram.inspect(&request).is_ok());
    }
}
