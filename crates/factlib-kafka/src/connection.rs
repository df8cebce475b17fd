//! One connection to one broker: requests go out one behind the other, answers come back in
//! their order.
//!
//! # Life
//! [`Connection::open`] connects, asks which versions the broker speaks and logs in. Two tasks
//! then live until either end closes: one writes, one reads. Dropping the handle closes it.
//!
//! # Failure
//! An answer that is late means that the connection is dead: it is closed, and every request on
//! it fails. Whoever sent them can't know what became of them.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::{Code, Error, Result},
    sasl,
    settings::Settings,
};

/// An answer larger than that is none; a broker's `socket.request.max.bytes` is as much.
const MAX_ANSWER_BYTES: i32 = 100 << 20;

/// A way to a broker, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub address: Arc<str>,
    calls: mpsc::UnboundedSender<Call>,
    versions: Arc<HashMap<i16, (i16, i16)>>,
    client_id: StrBytes,
}

struct Call {
    /// The request from its length on; the correlation id is not set yet.
    bytes: BytesMut,
    request: &'static str,
    answer: oneshot::Sender<Result<Bytes>>,
}

/// An answer that is awaited.
pub(crate) struct Pending<R> {
    answer: oneshot::Receiver<Result<Bytes>>,
    address: Arc<str>,
    version: i16,
    _response: std::marker::PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects to `host:port`, and logs in where the settings say so.
    pub async fn open(settings: &Settings, host: &str, port: u16) -> Result<Self> {
        let address: Arc<str> = format!("{host}:{port}").into();
        let opening = async {
            let stream = settings.connector.connect(host, port).await;
            let stream = stream.map_err(|error| broken(&address, error))?;
            let mut connection = Self::start(settings, Arc::clone(&address), stream);
            connection.versions = Arc::new(connection.ask_versions().await?);
            sasl::log_in(&connection, settings).await?;
            Ok(connection)
        };
        let limit = settings.connect_timeout;
        timeout(limit, opening).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                address: Arc::clone(&address),
                request: "the connection attempt",
            })
        })
    }

    fn start(settings: &Settings, address: Arc<str>, stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (calls, called) = mpsc::unbounded_channel();
        let (sent, awaited) = mpsc::unbounded_channel();
        tokio::spawn(write(writer, called, sent, Arc::clone(&address)));
        tokio::spawn(read(reader, awaited, settings.request_timeout, Arc::clone(&address)));
        let client_id = StrBytes::from_string(settings.client_id.clone());
        Connection { address, calls, versions: Arc::default(), client_id }
    }

    /// True once nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.calls.is_closed()
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: Request>(&self, request: &R, most: i16) -> Result<R::Response> {
        self.send(request, most)?.wait().await
    }

    /// Sends a request in the newest version that both sides speak, up to `most`.
    pub fn send<R: Request>(&self, request: &R, most: i16) -> Result<Pending<R::Response>> {
        let version = self.version::<R>(most)?;
        self.send_as(request, version)
    }

    /// The newest version of a request that both sides speak, up to `most`.
    pub fn version<R: Request>(&self, most: i16) -> Result<i16> {
        let (min, max) = self.versions.get(&R::KEY).copied().unwrap_or((0, -1));
        let ours = R::VERSIONS;
        let version = max.min(ours.max).min(most);
        if version < min.max(ours.min) {
            let name = name::<R>();
            let what =
                format!("it speaks {name} in versions {min} to {max}, which is too old or too new");
            return Err(Error::Protocol { address: Arc::clone(&self.address), what });
        }
        Ok(version)
    }

    fn send_as<R: Request>(&self, request: &R, version: i16) -> Result<Pending<R::Response>> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_client_id(Some(self.client_id.clone()));
        let size = request.compute_size(version).unwrap_or_default() + 64;
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_i32(0);
        let encoded = header
            .encode(&mut bytes, R::header_version(version))
            .and_then(|()| request.encode(&mut bytes, version));
        encoded.map_err(|error| self.unreadable(error.to_string()))?;
        let length = (bytes.len() - 4) as i32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let (answer, awaited) = oneshot::channel();
        // Where the connection is closed, the answer's sender is dropped, which says so.
        let _ = self.calls.send(Call { bytes, request: name::<R>(), answer });
        let address = Arc::clone(&self.address);
        Ok(Pending { answer: awaited, address, version, _response: std::marker::PhantomData })
    }

    async fn ask_versions(&self) -> Result<HashMap<i16, (i16, i16)>> {
        let name = || StrBytes::from_static_str("factlib");
        let version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
        let request = ApiVersionsRequest::default()
            .with_client_software_name(name())
            .with_client_software_version(version);
        let mut pending = self.send_as(&request, 3)?;
        let mut bytes = pending.bytes().await?;
        // A broker that does not know version 3 says so in version 0.
        let newest = bytes.clone();
        let read = ResponseHeader::decode(&mut bytes, 0)
            .and_then(|_| ApiVersionsResponse::decode(&mut bytes, 3));
        let mut answer = match read {
            Ok(answer) if answer.error_code == 0 => answer,
            _ => {
                let mut bytes = newest;
                ResponseHeader::decode(&mut bytes, 0)
                    .and_then(|_| ApiVersionsResponse::decode(&mut bytes, 0))
                    .map_err(|error| self.unreadable(error.to_string()))?
            }
        };
        if answer.error_code == Code::UnsupportedVersion.code() {
            answer = self.send_as(&ApiVersionsRequest::default(), 0)?.wait().await?;
        }
        crate::error::check(answer.error_code, None, || {
            format!("{} does not say what it speaks", self.address)
        })?;
        let keys = answer.api_keys.into_iter();
        Ok(keys.map(|key| (key.api_key, (key.min_version, key.max_version))).collect())
    }

    fn unreadable(&self, what: String) -> Error {
        Error::Protocol { address: Arc::clone(&self.address), what }
    }
}

impl<R: Message + Decodable + HeaderVersion> Pending<R> {
    /// The answer.
    pub async fn wait(mut self) -> Result<R> {
        let mut bytes = self.bytes().await?;
        let version = self.version;
        ResponseHeader::decode(&mut bytes, R::header_version(version))
            .and_then(|_| R::decode(&mut bytes, version))
            .map_err(|error| {
                let what = format!("an answer can't be read: {error}");
                Error::Protocol { address: Arc::clone(&self.address), what }
            })
    }
}

impl<R> Pending<R> {
    async fn bytes(&mut self) -> Result<Bytes> {
        (&mut self.answer).await.unwrap_or_else(|_| {
            let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
            Err(broken(&self.address, closed))
        })
    }
}

fn name<R: Request>() -> &'static str {
    let key = ApiKey::try_from(R::KEY);
    key.map_or("a request", |key| match key {
        ApiKey::Produce => "Produce",
        ApiKey::Metadata => "Metadata",
        ApiKey::InitProducerId => "InitProducerId",
        ApiKey::ApiVersions => "ApiVersions",
        ApiKey::SaslHandshake => "SaslHandshake",
        ApiKey::SaslAuthenticate => "SaslAuthenticate",
        _ => "a request",
    })
}

fn broken(address: &Arc<str>, source: io::Error) -> Error {
    Error::Connection { address: Arc::clone(address), source: Arc::new(source) }
}

/// A request that was sent, and who waits for its answer.
struct Sent {
    correlation_id: i32,
    request: &'static str,
    answer: oneshot::Sender<Result<Bytes>>,
    at: Instant,
}

async fn write(
    mut stream: WriteHalf<Box<dyn Stream>>,
    mut calls: mpsc::UnboundedReceiver<Call>,
    sent: mpsc::UnboundedSender<Sent>,
    address: Arc<str>,
) {
    let mut correlation_id = 0_i32;
    while let Some(Call { mut bytes, request, answer }) = calls.recv().await {
        correlation_id = correlation_id.wrapping_add(1);
        bytes[8..12].copy_from_slice(&correlation_id.to_be_bytes());
        let now = Instant::now();
        if let Err(lost) = sent.send(Sent { correlation_id, request, answer, at: now }) {
            // The reader has given the connection up.
            let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
            let _ = lost.0.answer.send(Err(broken(&address, closed)));
            return;
        }
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            // The reader finds it closed too, and says so to all who wait.
            let _ = stream.shutdown().await;
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut sent: mpsc::UnboundedReceiver<Sent>,
    limit: Duration,
    address: Arc<str>,
) {
    while let Some(Sent { correlation_id, request, answer, at }) = sent.recv().await {
        let read = timeout_at(at + limit, frame(&mut stream)).await;
        let error = match read {
            Ok(Ok(bytes)) if bytes.len() >= 4 && (&bytes[..4]).get_i32() == correlation_id => {
                let _ = answer.send(Ok(bytes));
                continue;
            }
            Ok(Ok(_)) => Error::Protocol {
                address: Arc::clone(&address),
                what: "an answer came to another request".into(),
            },
            Ok(Err(error)) => broken(&address, error),
            Err(_) => Error::TimedOut { address: Arc::clone(&address), request },
        };
        let _ = answer.send(Err(error.clone()));
        sent.close();
        while let Some(waiting) = sent.recv().await {
            let _ = waiting.answer.send(Err(error.clone()));
        }
        return;
    }
}

async fn frame(stream: &mut ReadHalf<Box<dyn Stream>>) -> io::Result<Bytes> {
    let length = stream.read_i32().await?;
    if !(0..=MAX_ANSWER_BYTES).contains(&length) {
        return Err(io::Error::other(format!(
            "an answer of {length} bytes: is it Kafka, and is TLS right?"
        )));
    }
    let mut bytes = BytesMut::zeroed(length as usize);
    stream.read_exact(&mut bytes).await?;
    Ok(bytes.freeze())
}
