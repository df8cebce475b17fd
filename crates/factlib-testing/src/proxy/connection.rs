//! One connection through the proxy.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{Flow, Network};

const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks in flight in one direction, as on a long line.
const CHUNKS_IN_FLIGHT: usize = 64;
/// With a rate limit, each write carries the bytes of this time.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// Carries bytes both ways until both ends have closed, or one breaks, or the proxy resets it.
pub(super) async fn run(
    mut client: TcpStream,
    mut server: TcpStream,
    network: watch::Receiver<Network>,
) {
    // Small messages must not be delayed here.
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let closed_normally = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = reset(network.clone()) => false,
            done = async {
                tokio::try_join!(
                    carry(from_client, to_server, network.clone()),
                    carry(from_server, to_client, network.clone()),
                )
            } => done.is_ok(),
        }
    };
    if !closed_normally {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

/// Returns at the next reset, and when the proxy is dropped.
async fn reset(mut network: watch::Receiver<Network>) {
    let resets = network.borrow().resets;
    network.wait_for(|network| network.resets != resets).await.ok();
}

/// Carries bytes in one direction until their end.
async fn carry(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    network: watch::Receiver<Network>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    tokio::try_join!(read(from, sender, network.clone()), write(to, receiver, network))?;
    Ok(())
}

/// Reads bytes and stamps them with the time at which they are due.
async fn read(
    mut from: ReadHalf<'_>,
    line: mpsc::Sender<(Instant, Vec<u8>)>,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let Network { flow, latency, .. } = *flowing(&mut network).await?;
        if flow == Flow::Swallowing {
            return swallow(from, buffer).await;
        }
        let length = tokio::select! {
            length = from.read(&mut buffer) => length?,
            _ = network.changed() => continue,
        };
        // The network may have changed while these bytes arrived.
        if flowing(&mut network).await?.flow == Flow::Swallowing {
            return swallow(from, buffer).await;
        }
        if length == 0 {
            return Ok(());
        }
        let chunk = buffer.get(..length).unwrap_or_default().to_vec();
        line.send((Instant::now() + latency, chunk)).await.map_err(io::Error::other)?;
    }
}

/// Writes the bytes that are due, no faster than the rate, and then closes this direction.
async fn write(
    mut to: WriteHalf<'_>,
    mut line: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    while let Some((due, chunk)) = line.recv().await {
        sleep_until(due).await;
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            let Network { flow, bytes_per_s, .. } = *flowing(&mut network).await?;
            if flow == Flow::Swallowing {
                // The reader drops all bytes from here on; this end stays open.
                std::future::pending::<()>().await;
            }
            let piece = bytes_per_s.map_or(rest.len(), |rate| {
                let piece = rate.saturating_mul(WRITE_INTERVAL.as_millis() as u64) / 1000;
                rest.len().min(piece.max(1) as usize)
            });
            let (now, later) = rest.split_at(piece);
            to.write_all(now).await?;
            rest = later;
            if let Some(rate) = bytes_per_s {
                sleep(Duration::from_secs_f64(piece as f64 / rate as f64)).await;
            }
        }
    }
    to.shutdown().await
}

/// Returns the network as soon as it isn't paused.
async fn flowing(network: &mut watch::Receiver<Network>) -> io::Result<watch::Ref<'_, Network>> {
    network.wait_for(|network| network.flow != Flow::Paused).await.map_err(io::Error::other)
}

/// Drops all bytes and keeps the connection open; only a reset ends it.
async fn swallow(mut from: ReadHalf<'_>, mut buffer: Vec<u8>) -> io::Result<()> {
    while !matches!(from.read(&mut buffer).await, Ok(0) | Err(_)) {}
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{net::TcpListener, time::timeout};

    use super::super::Proxy;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    /// The time in which nothing may happen.
    const A_WHILE: Duration = Duration::from_millis(100);

    /// Starts a server that sends back what it receives.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        address
    }

    async fn connected() -> (Proxy, TcpStream) {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn ask(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn paused_bytes_arrive_after_resume() {
        let (proxy, mut stream) = connected().await;
        assert_eq!(ask(&mut stream, b"before").await.unwrap(), b"before");
        proxy.pause();
        assert!(timeout(A_WHILE, ask(&mut stream, b"during")).await.is_err());
        proxy.resume();
        let mut answer = [0; 6];
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"during");
        assert_eq!(proxy.connections(), 1);
    }

    #[tokio::test]
    async fn latency_counts_both_ways() {
        let (proxy, mut stream) = connected().await;
        proxy.latency(Duration::from_millis(30));
        ask(&mut stream, b"warm").await.unwrap();
        let begin = Instant::now();
        ask(&mut stream, b"hello").await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_rate_makes_bytes_drip() {
        let (proxy, mut stream) = connected().await;
        proxy.rate(10_000);
        let begin = Instant::now();
        ask(&mut stream, &[7; 1000]).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(90), "{:?}", begin.elapsed());
        proxy.rate(None);
        timeout(SOON, ask(&mut stream, &[7; 100_000])).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_an_error_not_an_end() {
        let (proxy, mut stream) = connected().await;
        ask(&mut stream, b"hello").await.unwrap();
        proxy.reset_all();
        let error = timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut next, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn half_open_takes_bytes_and_answers_nothing_until_reset() {
        let (proxy, mut stream) = connected().await;
        ask(&mut stream, b"hello").await.unwrap();
        proxy.half_open();
        // Far more than what buffers hold: they are really taken.
        let lost = vec![1; 32 << 20];
        timeout(SOON, stream.write_all(&lost)).await.unwrap().unwrap();
        proxy.resume();
        assert!(timeout(A_WHILE, ask(&mut stream, b"more")).await.is_err());
        proxy.reset_all();
        assert!(timeout(SOON, stream.read(&mut [0])).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn refused_connections_end_at_once() {
        let (proxy, _kept) = connected().await;
        proxy.refuse();
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(timeout(SOON, ask(&mut refused, b"hello")).await.unwrap().is_err());
        proxy.accept();
        let mut accepted = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut accepted, b"hello").await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (_proxy, mut stream) = connected().await;
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"last words");
    }

    #[tokio::test]
    async fn dropping_the_proxy_closes_its_connections() {
        let (proxy, mut stream) = connected().await;
        ask(&mut stream, b"hello").await.unwrap();
        drop(proxy);
        assert!(!matches!(timeout(SOON, stream.read(&mut [0])).await.unwrap(), Ok(1..)));
    }
}
