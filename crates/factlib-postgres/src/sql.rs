//! Ordinary clients, over the same hosts, TLS and rules as the replication connection.

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
    connector::{self, Startup},
    require_auth::{CORRECT_AUTH, Method, RequireAuth},
    settings::{self, TargetSessionAttrs},
    stream::Stream,
};
use crate::{Error, ErrorKind, Notice, Result, error::postgres_error};

/// Connects an ordinary client within `timeout`. Its connection ends when the client is dropped.
///
/// # Errors
/// The last reason for which none of the hosts let us in.
pub async fn connect(info: &ConnectInfo, timeout: Duration) -> Result<Client> {
    Ok(open(info, timeout).await?.0)
}

/// Connects within `timeout`; the connection ends when the client is dropped. Answers where it is
/// connected to as well: one address of one host.
pub(super) async fn open(info: &ConnectInfo, timeout: Duration) -> Result<(Client, Host)> {
    connector::connect(info, timeout, &SqlStartup { info }).await
}

/// Asks the server at `info` to cancel what the client of this token runs; whether it does is
/// not known.
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

    async fn start(&self, stream: Stream, host: &Host, _: TargetSessionAttrs) -> Result<()> {
        // The server answers nothing.
        let stream = Guarded { guard: Guard::new(&stream, &RequireAuth::default()), stream };
        let what = || format!("cannot cancel a statement in PostgreSQL at {host}");
        let cancelling = self.0.cancel_query_raw(stream, AsItIs).await;
        cancelling.map_err(|error| postgres_error(what(), error))
    }
}

struct SqlStartup<'a> {
    info: &'a ConnectInfo,
}

impl Startup for SqlStartup<'_> {
    type Session = (Client, Host);

    async fn start(
        &self,
        stream: Stream,
        host: &Host,
        target: TargetSessionAttrs,
    ) -> Result<(Client, Host)> {
        let here = Host { hostaddr: stream.peer(), ..host.clone() };
        let what = format!("cannot log in to PostgreSQL at {host} as {}", self.info.user);
        let stream = Guarded { guard: Guard::new(&stream, &self.info.require_auth), stream };
        let (client, connection) = self
            .config(host)
            .connect_raw(stream, AsItIs)
            .await
            .map_err(|error| postgres_error(what, error))?;
        let observer = self.info.observer();
        tokio::spawn(async move {
            // Whoever uses the client gets an error of their own.
            if let Err(error) = connection.await {
                observer.notice(&Notice::ConnectionEnded { error: &error });
            }
        });
        check(&client, host, target).await?;
        Ok((client, here))
    }
}

impl SqlStartup<'_> {
    fn config(&self, host: &Host) -> config::Config {
        let info = self.info;
        let mut config = config::Config::new();
        config
            .user(&info.user)
            .dbname(&info.dbname)
            .application_name(info.application_name())
            // Encryption is settled before; this makes it take the stream as it is.
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
        if let Some(password) = info.password(host) {
            config.password(password.expose_secret());
        }
        config
    }
}

async fn check(client: &Client, host: &Host, target: TargetSessionAttrs) -> Result<()> {
    let Some((query, wanted)) = target.test() else { return Ok(()) };
    let what = || format!("cannot ask PostgreSQL at {host} whether it is a primary");
    let answer = client.simple_query(query).await.map_err(|error| postgres_error(what(), error))?;
    let answer = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    if answer == Some(wanted) { Ok(()) } else { Err(target.mismatch(host)) }
}

/// Hands a stream over that has its TLS, or none, already.
struct AsItIs;

impl TlsConnect<Guarded> for AsItIs {
    type Stream = Guarded;
    type Error = Infallible;
    type Future = Ready<Result<Guarded, Infallible>>;

    fn connect(self, stream: Guarded) -> Self::Future {
        ready(Ok(stream))
    }
}

/// The stream, with a guard at its beginning.
struct Guarded {
    stream: Stream,
    guard: Guard,
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> ChannelBinding {
        let binding = self.stream.tls().and_then(|tls| tls.channel_binding.clone());
        binding.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if result.is_ready() {
            this.guard.look(buf.filled().get(before..).unwrap_or_default())?;
        }
        result
    }
}

impl AsyncWrite for Guarded {
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

/// Looks at the server's first message, which says how to log in, before tokio-postgres does.
///
/// tokio-postgres would answer whatever it is asked for: a password in clear on any connection,
/// and any method, whatever `require_auth` says.
struct Guard {
    /// The message's first bytes; `None` once that is settled.
    begin: Option<Vec<u8>>,
    may_carry_a_password: bool,
    require_auth: RequireAuth,
}

impl Guard {
    /// Type, length and code of an authentication request.
    const LENGTH: usize = 9;

    fn new(stream: &Stream, require_auth: &RequireAuth) -> Self {
        Guard {
            begin: Some(Vec::new()),
            may_carry_a_password: stream.may_carry_a_password(),
            require_auth: require_auth.clone(),
        }
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(begin) = &mut self.begin else { return Ok(()) };
        let missing = Self::LENGTH - begin.len();
        begin.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
        // Anything else is an error, or a server that does not know the protocol.
        let [b'R', _, _, _, _, code @ ..] = begin.as_slice() else {
            if begin.first().is_some_and(|kind| *kind != b'R') {
                self.begin = None;
            }
            return Ok(());
        };
        let Ok(code) = code.try_into().map(i32::from_be_bytes) else { return Ok(()) };
        self.begin = None;
        let method = RequireAuth::method(code);
        let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if let Some(objection) = method.and_then(|method| self.require_auth.objection(method)) {
            return refused(format!("{objection} ({CORRECT_AUTH})"));
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
    /// The server is not what was asked for; another one, or this one later, may be.
    pub(super) fn mismatch(self, host: &Host) -> Error {
        let what = format!("PostgreSQL at {host} is not what target_session_attrs asks for");
        let error = Error::new(ErrorKind::Unavailable, what);
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

    fn guard(may_carry_a_password: bool) -> Guard {
        let require_auth = RequireAuth::default();
        Guard { begin: Some(Vec::new()), may_carry_a_password, require_auth }
    }

    #[test]
    fn a_password_in_clear_is_refused_however_the_bytes_arrive() {
        let request = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
        for cut in 0..request.len() {
            let mut guard = guard(false);
            assert!(guard.look(&request[..cut]).is_ok());
            assert!(guard.look(&request[cut..]).is_err());
        }
        let mut safe = guard(true);
        assert!(safe.look(&request).is_ok());
        let mut scram = guard(false);
        assert!(scram.look(&[b'R', 0, 0, 0, 23, 0, 0, 0, 10]).is_ok());
        assert!(scram.look(&request).is_ok());
    }
}
