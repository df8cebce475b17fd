//! Listens for one broker and serves its connections: one request after the other on each, like a
//! real broker.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    Shared,
    requests::{Reply, respond},
};

/// Largest request: the default of `socket.request.max.bytes`.
const MAX_REQUEST_BYTES: usize = 100 << 20;

/// A run of a broker: its id and the number of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub broker: i32,
    pub number: u64,
}

/// Accepts connections until the returned task is aborted, which closes all of them.
pub(super) fn serve(listener: TcpListener, run: Run, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(connection(stream, run, Arc::clone(&shared)));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

/// Serves one connection. An error of the connection ends it, as does a scripted one.
async fn connection(mut stream: TcpStream, run: Run, shared: Arc<Shared>) {
    // The next answer should not wait for the client's acknowledgement of the last one.
    let _ = stream.set_nodelay(true);
    while let Ok(frame) = read_frame(&mut stream).await {
        match respond(&shared, run, frame).await {
            Reply::Bytes(bytes, throttle) if write_frame(&mut stream, &bytes).await.is_ok() => {
                tokio::time::sleep(throttle).await;
            }
            Reply::Nothing => {}
            Reply::Bytes(..) | Reply::HangUp => return,
        }
    }
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
    if length > MAX_REQUEST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = BytesMut::zeroed(length);
    stream.read_exact(&mut frame).await?;
    Ok(frame.freeze())
}

async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(4 + bytes.len());
    frame.extend((bytes.len() as u32).to_be_bytes());
    frame.extend(bytes);
    stream.write_all(&frame).await
}
