//! Opens connections to brokers: plain TCP here, TLS in [`tls`](crate::tls).

use std::{future::Future, io, pin::Pin, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};

use crate::race::first_ok;

/// Time before the next address of the same name is tried too (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Detects in eleven seconds that the host at the other end of a silent connection is gone.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(5))
    .with_interval(Duration::from_secs(2))
    .with_retries(3);

/// Limit for the other host to confirm sent bytes. Keep-alive detects nothing while some are
/// unconfirmed, and the system itself tries for a quarter of an hour. Only Linux has it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNCONFIRMED_LIMIT: Duration = Duration::from_secs(10);

/// A byte stream to a broker, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Future of a connection attempt.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Opens connections. A TLS connector also encrypts them and verifies the broker.
pub trait Connector: Send + Sync + 'static {
    /// Connects to a broker.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;

    /// Returns true if it encrypts its connections. A broker that hangs up on one that does not
    /// probably wants TLS.
    fn is_encrypted(&self) -> bool {
        false
    }
}

/// Plain TCP without encryption.
#[derive(Clone, Copy, Debug)]
pub struct Plaintext;

impl Connector for Plaintext {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move { Ok(Box::new(tcp(host, port).await?) as Box<dyn Stream>) })
    }
}

/// The name of a broker has no address: the inner error of the [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unresolved(io::Error);

/// Connects to the first address of the host that accepts a connection.
pub(crate) async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await;
    let addresses = addresses.map_err(|error| io::Error::other(Unresolved(error)))?;
    let connected = first_ok(addresses, HEAD_START, TcpStream::connect).await;
    let unknown = || io::Error::other(Unresolved(io::Error::other("the name has no address")));
    let stream = connected.map_err(|failed| failed.unwrap_or_else(unknown))?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_LIMIT))?;
    Ok(stream)
}
