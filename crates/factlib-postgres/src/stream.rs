//! The byte stream of a connection: TCP, TLS over TCP, or a Unix socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use factlib_tls::TlsStream;
use rustix::io::ioctl_fionread;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::connect_info::{Host, Keepalives};

/// Receive buffer for connections within one host. There, a packet costs its sender more than its
/// bytes do; a small window makes the sender collect bytes into large packets. Over a network, it
/// would limit the throughput to its size per round trip, so the kernel chooses the size.
const LOCAL_RECEIVE_BUFFER: usize = 64 << 10;

/// The byte stream of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    /// True if the peer is on this host, so that nobody can listen in between.
    local: bool,
    tls: Option<TlsFacts>,
}

/// Results of the TLS handshake.
#[derive(Debug)]
pub(super) struct TlsFacts {
    /// True if the certificate's chain was verified.
    pub verified: bool,
    /// `tls-server-end-point` of RFC 5929, if the certificate has one.
    pub channel_binding: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    // Buffered, because rustls reads few bytes at a time.
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Stream {
    /// Opens a TCP connection.
    pub async fn tcp(address: SocketAddr, keepalives: &Keepalives) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        keep_alive(&socket, keepalives)?;
        let local = address.ip().to_canonical().is_loopback();
        if local {
            SockRef::from(&socket).set_recv_buffer_size(LOCAL_RECEIVE_BUFFER)?;
        }
        Ok(Self::from_tcp(socket, local))
    }

    /// Wraps a TCP connection without TLS.
    pub fn from_tcp(socket: TcpStream, local: bool) -> Self {
        Stream { transport: Transport::Tcp(socket), local, tls: None }
    }

    /// Opens a connection to the Unix socket in the directory that `host` names.
    pub async fn unix(host: &Host) -> io::Result<Self> {
        let path = Path::new(&host.name).join(format!(".s.PGSQL.{}", host.port));
        let socket = UnixStream::connect(path).await?;
        Ok(Stream { transport: Transport::Unix(socket), local: true, tls: None })
    }

    /// Wraps a TCP connection with TLS.
    pub fn encrypted(
        stream: TlsStream<BufReader<TcpStream>>,
        local: bool,
        facts: TlsFacts,
    ) -> Self {
        Stream { transport: Transport::Tls(Box::new(stream)), local, tls: Some(facts) }
    }

    /// Returns the TCP connection, on which TLS can be started; otherwise the stream itself.
    pub fn into_tcp(self) -> Result<TcpStream, Self> {
        match self.transport {
            Transport::Tcp(socket) => Ok(socket),
            transport => Err(Stream { transport, ..self }),
        }
    }

    /// Returns the peer's address; none over a Unix socket.
    pub fn peer(&self) -> Option<IpAddr> {
        let socket = match &self.transport {
            Transport::Tcp(socket) => socket,
            Transport::Tls(stream) => stream.get_ref().0.get_ref(),
            Transport::Unix(_) => return None,
        };
        socket.peer_addr().ok().map(|address| address.ip())
    }

    pub fn is_local(&self) -> bool {
        self.local
    }

    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// True if nobody but the server would see a password in clear.
    pub fn may_carry_a_password(&self) -> bool {
        self.local || self.tls.is_some()
    }
}

impl Stream {
    /// Waits until there are bytes to read or the stream ends; cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.transport {
            Transport::Tcp(socket) => socket.readable().await,
            Transport::Unix(socket) => socket.readable().await,
            Transport::Tls(_) if self.has_buffered_bytes() => Ok(()),
            Transport::Tls(stream) => stream.get_ref().0.get_ref().readable().await,
        }
    }

    /// Returns the number of bytes that wait in the socket.
    pub fn bytes_in_socket(&self) -> usize {
        let waiting = match &self.transport {
            Transport::Tcp(socket) => ioctl_fionread(socket),
            Transport::Unix(socket) => ioctl_fionread(socket),
            Transport::Tls(stream) => ioctl_fionread(stream.get_ref().0.get_ref()),
        };
        waiting.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// True if bytes have left the socket and were not read yet.
    pub fn has_buffered_bytes(&self) -> bool {
        match &self.transport {
            Transport::Tls(stream) => {
                let (buffered, session) = stream.get_ref();
                // It wants no more as long as decrypted bytes are left.
                !session.wants_read() || !buffered.buffer().is_empty()
            }
            Transport::Tcp(_) | Transport::Unix(_) => false,
        }
    }
}

fn keep_alive(socket: &TcpStream, keepalives: &Keepalives) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if keepalives.enabled {
        let alive = TcpKeepalive::new()
            .with_time(keepalives.idle)
            .with_interval(keepalives.interval)
            .with_retries(keepalives.count);
        socket.set_tcp_keepalive(&alive)?;
    }
    #[cfg(target_os = "linux")]
    if keepalives.user_timeout.is_some() {
        socket.set_tcp_user_timeout(keepalives.user_timeout)?;
    }
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Transport::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Transport::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
