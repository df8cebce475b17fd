//! A TCP proxy that delays, stalls and breaks connections on request.
//!
//! It runs on its own thread, so it serves clients on any runtime, and a blocked test does not block
//! it. Changes take effect at once, on open and on future connections.

mod connection;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::watch,
    task::JoinSet,
};

use crate::{Error, ErrorKind, Result};

/// A TCP proxy on a port of 127.0.0.1; dropping it closes every connection.
///
/// ```no_run
/// # async fn example() -> factlib_testing::Result<()> {
/// let network = factlib_testing::Proxy::start("127.0.0.1:5432".parse().unwrap()).await?;
/// // … connect to network.address() …
/// network.pause();
/// network.resume();
/// network.reset_all();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    open: Arc<AtomicUsize>,
    // The last field: the thread ends once the sender above is dropped.
    _thread: Thread,
}

/// The present behaviour of the network.
#[derive(Clone, Copy, Debug)]
struct Network {
    target: SocketAddr,
    flow: Flow,
    accepting: bool,
    latency: Duration,
    bytes_per_s: Option<u64>,
    /// Counts the calls of `reset_all`: a connection of an earlier count is reset.
    resets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// No bytes are read or written: TCP stops the sender.
    Paused,
    /// Bytes are accepted and dropped: the sender notices nothing.
    Swallowing,
}

impl Proxy {
    /// Listens on a free port and connects clients to `target`, which need not listen yet.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let failed = |cause| Error::new(ErrorKind::Setup, "cannot start a proxy").caused_by(cause);
        let port = crate::ports::free_port()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (network, seen) = watch::channel(Network {
            target,
            flow: Flow::Open,
            accepting: true,
            latency: Duration::ZERO,
            bytes_per_s: None,
            resets: 0,
        });
        let open = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&open);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                // Fails only outside of a runtime.
                if let Ok(listener) = TcpListener::from_std(listener) {
                    serve(listener, seen, counter).await;
                }
            });
        });
        Ok(Proxy { address, network, open, _thread: Thread(Some(thread)) })
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Stalls both directions; nothing is lost.
    pub fn pause(&self) {
        self.change(|network| network.flow = Flow::Paused);
    }

    /// Lets bytes flow again, except on connections that lost bytes to [`half_open`](Self::half_open).
    pub fn resume(&self) {
        self.change(|network| network.flow = Flow::Open);
    }

    /// Accepts bytes and forwards none, without closing connections: a peer that vanished silently.
    ///
    /// A connection that lost bytes this way stays dead until [`reset_all`](Self::reset_all).
    pub fn half_open(&self) {
        self.change(|network| network.flow = Flow::Swallowing);
    }

    /// Delays every byte by this time, in each direction.
    pub fn latency(&self, latency: Duration) {
        self.change(|network| network.latency = latency);
    }

    /// Limits each connection to this many bytes per second in each direction; `None` is no limit.
    pub fn rate(&self, bytes_per_s: impl Into<Option<u64>>) {
        let bytes_per_s = bytes_per_s.into().map(|rate| rate.max(1));
        self.change(|network| network.bytes_per_s = bytes_per_s);
    }

    /// Resets every open connection, at both ends (RST).
    pub fn reset_all(&self) {
        self.change(|network| network.resets += 1);
    }

    /// Closes new connections at once.
    pub fn refuse(&self) {
        self.change(|network| network.accepting = false);
    }

    /// Accepts new connections again after [`refuse`](Self::refuse).
    pub fn accept(&self) {
        self.change(|network| network.accepting = true);
    }

    /// Connects new connections to another target, as after a failover.
    pub fn retarget(&self, target: SocketAddr) {
        self.change(|network| network.target = target);
    }

    fn change(&self, change: impl FnOnce(&mut Network)) {
        self.network.send_modify(change);
    }
}

/// Joins the thread when dropped.
#[derive(Debug)]
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            thread.join().ok();
        }
    }
}

async fn serve(
    listener: TcpListener,
    mut network: watch::Receiver<Network>,
    open: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            changed = network.changed() => if changed.is_err() { return },
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let network = network.clone();
                let open = Open::count(&open);
                connections.spawn(async move {
                    let _open = open;
                    connect(client, network).await;
                });
            }
        }
    }
}

async fn connect(client: TcpStream, network: watch::Receiver<Network>) {
    let Network { accepting, target, .. } = *network.borrow();
    let server = if accepting { TcpStream::connect(target).await.ok() } else { None };
    match server {
        Some(server) => connection::run(client, server, network).await,
        // RST, as from a port without a listener.
        None => drop(client.set_zero_linger()),
    }
}

/// One open connection.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(counter))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
