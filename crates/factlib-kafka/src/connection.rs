//! One connection to one broker. Requests are pipelined; responses come back in the same order.
//!
//! # Life
//! [`Connection::open`] connects, fetches the versions that the broker supports and logs in. Two
//! tasks, a writer and a reader, then run until either side closes the connection. Dropping the
//! last handle closes the connection.
//!
//! # Failure
//! A late response means that the connection is dead: the client closes the connection, and every
//! request on it fails. The results of these requests are unknown.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    connector::{Stream, Unresolved},
    error::{Code, Error, Result},
    sasl,
    settings::Settings,
};

/// Maximum size of a response, equal to the default of the broker's `socket.request.max.bytes`.
const MAX_RESPONSE_BYTES: i32 = 100 << 20;

/// Share of the session's lifetime after which the client logs in again.
const SESSION_SHARE: f64 = 0.8;

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub address: Arc<str>,
    /// Tells it from all others of this process.
    pub serial: u64,
    pub mute: Mute,
    /// Number of requests without an answer.
    unanswered: Arc<AtomicUsize>,
    calls: mpsc::UnboundedSender<Call>,
    abilities: Arc<Abilities>,
    client_id: StrBytes,
    end: watch::Receiver<Option<Error>>,
    login_due: Option<Instant>,
}

/// The time for which a broker reads nothing from the connection, because the client has exceeded a
/// quota (KIP-219). Requests that are in flight wait that much longer.
#[derive(Clone, Default)]
pub(crate) struct Mute(Arc<Mutex<Option<Instant>>>);

impl Mute {
    /// Notes that the broker reads nothing for this time.
    pub fn extend(&self, time: Duration) {
        if !time.is_zero() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
        }
    }

    /// Returns true while the broker reads nothing.
    fn is_on(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Returns the time at which a response is late to a request that was sent at `sent`.
    fn due(&self, sent: Instant, limit: Duration) -> Instant {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(sent, |until| until.max(sent)) + limit
    }

    /// Waits for a response; returns none if it is late.
    async fn in_time<T>(
        &self,
        response: impl Future<Output = T>,
        sent: Instant,
        limit: Duration,
    ) -> Option<T> {
        let mut response = pin!(response);
        loop {
            let due = self.due(sent, limit);
            match timeout_at(due, &mut response).await {
                Ok(response) => return Some(response),
                Err(_) if self.due(sent, limit) <= due => return None,
                // The broker has begun to throttle meanwhile.
                Err(_) => {}
            }
        }
    }
}

/// Versions and features of a broker.
#[derive(Default)]
struct Abilities {
    requests: HashMap<i16, (i16, i16)>,
    features: HashMap<String, i16>,
}

struct Call {
    /// The encoded request, including its length; the correlation id is not set yet.
    bytes: BytesMut,
    request: &'static str,
    response: oneshot::Sender<Result<Bytes>>,
}

/// A request that was sent and awaits its response.
pub(crate) struct Pending<R> {
    response: oneshot::Receiver<Result<Bytes>>,
    address: Arc<str>,
    version: i16,
    _response: std::marker::PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects to `host:port`, and logs in if the settings have a login.
    pub async fn open(settings: &Settings, host: &str, port: u16) -> Result<Self> {
        let address: Arc<str> = format!("{host}:{port}").into();
        let opening = async {
            let stream = settings.connector.connect(host, port).await;
            let stream = stream.map_err(|error| match is_caused_by::<Unresolved>(&error) {
                true => Error::Unresolved { address: address.clone(), source: Arc::new(error) },
                false => broken(&address, error),
            })?;
            let mut connection = Self::start(settings, Arc::clone(&address), stream);
            let abilities = connection.fetch_versions().await.map_err(|error| match &error {
                Error::Connection { source, .. }
                    if is_closed_by_peer(source) && !settings.connector.is_encrypted() =>
                {
                    Error::HungUp { address: Arc::clone(&address) }
                }
                Error::Connection { source, .. } if is_caused_by::<SpeaksTls>(source) => {
                    Error::WantsTls { address: Arc::clone(&address) }
                }
                _ => error,
            });
            connection.abilities = Arc::new(abilities?);
            connection.log_in(settings).await
        };
        let limit = settings.connect_timeout;
        timeout(limit, opening).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                address: Arc::clone(&address),
                request: "the connection attempt",
            })
        })
    }

    /// Logs in, for the first time or again before the session ends. No other request may be in
    /// flight.
    pub async fn log_in(mut self, settings: &Settings) -> Result<Self> {
        let began = Instant::now();
        let lifetime = sasl::log_in(&self, settings).await?;
        self.login_due = lifetime.map(|lifetime| began + lifetime.mul_f64(SESSION_SHARE));
        Ok(self)
    }

    /// Returns true if it is time to log in again, before the session ends.
    pub fn is_login_due(&self) -> bool {
        self.login_due.is_some_and(|due| due <= Instant::now())
    }

    fn start(settings: &Settings, address: Arc<str>, stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (calls, called) = mpsc::unbounded_channel();
        let (sent, awaited) = mpsc::unbounded_channel();
        let (ended, end) = watch::channel(None);
        let ended = Ended { address: Arc::clone(&address), ended: Arc::new(ended) };
        let (mute, unanswered) = (Mute::default(), Arc::<AtomicUsize>::default());
        tokio::spawn(write(writer, called, sent, ended.clone()));
        let has_login = settings.login.is_some();
        let limits = (settings.request_timeout, mute.clone());
        tokio::spawn(read(reader, awaited, limits, Arc::clone(&unanswered), has_login, ended));
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        Connection {
            address,
            serial: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            mute,
            unanswered,
            calls,
            abilities: Arc::default(),
            client_id: StrBytes::from_string(settings.client_id.clone()),
            end,
            login_due: None,
        }
    }

    /// Returns true once the connection can send nothing more.
    pub fn is_closed(&self) -> bool {
        // Without a sender, its tasks have ended with their runtime.
        self.end.borrow().is_some() || self.end.has_changed().is_err()
    }

    /// Returns the error with which the connection has ended.
    pub fn end_error(&self) -> Option<Error> {
        self.end.borrow().clone()
    }

    /// Returns true if somebody else can use the connection: it is open, every request is answered,
    /// and the broker does not throttle it.
    pub fn is_at_rest(&self) -> bool {
        self.unanswered.load(Ordering::Acquire) == 0 && !self.is_closed() && !self.mute.is_on()
    }

    /// Waits for the end of the connection and returns the error; none if the owners dropped the
    /// connection.
    pub fn closed(&self) -> impl Future<Output = Option<Error>> + Send + 'static {
        let mut end = self.end.clone();
        async move {
            let error = end.wait_for(Option::is_some).await.ok()?;
            error.clone()
        }
    }

    /// Returns the finalized level of a feature of the cluster; 0 if the cluster lacks the
    /// feature.
    pub fn feature(&self, name: &str) -> i16 {
        self.abilities.features.get(name).copied().unwrap_or(0)
    }

    /// Sends a request and waits for its response.
    pub async fn call<R: Request>(&self, request: &R, max_version: i16) -> Result<R::Response> {
        self.send(request, max_version)?.wait().await
    }

    /// Sends a request in the newest version that both sides support, up to `max_version`.
    pub fn send<R: Request>(&self, request: &R, max_version: i16) -> Result<Pending<R::Response>> {
        let version = self.version::<R>(max_version)?;
        self.send_as(request, version)
    }

    /// Returns the newest version of a request that both sides support, up to `max_version`.
    pub fn version<R: Request>(&self, max_version: i16) -> Result<i16> {
        let (min, max) = self.abilities.requests.get(&R::KEY).copied().unwrap_or((0, -1));
        let ours = R::VERSIONS;
        let version = max.min(ours.max).min(max_version);
        if version < min.max(ours.min) {
            let name = name::<R>();
            return Err(self.unsupported(format!(
                "supports {name} in versions {min} to {max}, which is too old or too new"
            )));
        }
        Ok(version)
    }

    /// Fails if the broker supports no version of a request from `min_version` on.
    pub fn require<R: Request>(&self, min_version: i16) -> Result<()> {
        let version = self.version::<R>(i16::MAX)?;
        if version < min_version {
            let name = name::<R>();
            return Err(self.unsupported(format!(
                "supports {name} up to version {version}, and version {min_version} is needed"
            )));
        }
        Ok(())
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
        // A version that is too old lacks a field.
        encoded.map_err(|error| {
            self.unsupported(format!("supports {} up to version {version}: {error}", name::<R>()))
        })?;
        let length = (bytes.len() - 4) as i32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let (response, awaited) = oneshot::channel();
        self.unanswered.fetch_add(1, Ordering::AcqRel);
        // If the connection is closed, dropping the sender fails the pending request.
        let _ = self.calls.send(Call { bytes, request: name::<R>(), response });
        let address = Arc::clone(&self.address);
        Ok(Pending { response: awaited, address, version, _response: std::marker::PhantomData })
    }

    async fn fetch_versions(&self) -> Result<Abilities> {
        let name = || StrBytes::from_static_str("factlib");
        let version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
        let request = ApiVersionsRequest::default()
            .with_client_software_name(name())
            .with_client_software_version(version);
        let mut pending = self.send_as(&request, 3)?;
        let mut bytes = pending.bytes().await?;
        // A broker that does not support version 3 responds in version 0.
        let newest = bytes.clone();
        let read = ResponseHeader::decode(&mut bytes, 0)
            .and_then(|_| ApiVersionsResponse::decode(&mut bytes, 3));
        let mut response = match read {
            Ok(response) if response.error_code == 0 => response,
            _ => {
                let mut bytes = newest;
                ResponseHeader::decode(&mut bytes, 0)
                    .and_then(|_| ApiVersionsResponse::decode(&mut bytes, 0))
                    .map_err(|error| self.unreadable(error.to_string()))?
            }
        };
        if response.error_code == Code::UnsupportedVersion.code() {
            response = self.send_as(&ApiVersionsRequest::default(), 0)?.wait().await?;
        }
        crate::error::check(response.error_code, None, || {
            format!("{} does not list its request versions", self.address)
        })?;
        let keys = response.api_keys.into_iter();
        let features = response.finalized_features.into_iter();
        Ok(Abilities {
            requests: keys.map(|key| (key.api_key, (key.min_version, key.max_version))).collect(),
            features: features.map(|f| (f.name.to_string(), f.max_version_level)).collect(),
        })
    }

    fn unsupported(&self, what: String) -> Error {
        Error::Unsupported { address: Arc::clone(&self.address), what }
    }

    fn unreadable(&self, what: String) -> Error {
        Error::Protocol { address: Arc::clone(&self.address), what }
    }
}

impl<R: Message + Decodable + HeaderVersion> Pending<R> {
    /// Waits for the response and decodes it.
    pub async fn wait(mut self) -> Result<R> {
        let mut bytes = self.bytes().await?;
        let version = self.version;
        ResponseHeader::decode(&mut bytes, R::header_version(version))
            .and_then(|_| R::decode(&mut bytes, version))
            .map_err(|error| {
                let what = format!("cannot decode a response: {error}");
                Error::Protocol { address: Arc::clone(&self.address), what }
            })
    }
}

impl<R> Pending<R> {
    async fn bytes(&mut self) -> Result<Bytes> {
        (&mut self.response).await.unwrap_or_else(|_| {
            let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
            Err(broken(&self.address, closed))
        })
    }
}

/// Name of the request that a broker answers before a login.
const API_VERSIONS: &str = "ApiVersions";

fn name<R: Request>() -> &'static str {
    ApiKey::try_from(R::KEY).map_or("a request", |key| match key {
        ApiKey::AddPartitionsToTxn => "AddPartitionsToTxn",
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreatePartitions => "CreatePartitions",
        ApiKey::CreateTopics => "CreateTopics",
        ApiKey::DeleteTopics => "DeleteTopics",
        ApiKey::DescribeConfigs => "DescribeConfigs",
        ApiKey::DescribeGroups => "DescribeGroups",
        ApiKey::EndTxn => "EndTxn",
        ApiKey::Fetch => "Fetch",
        ApiKey::FindCoordinator => "FindCoordinator",
        ApiKey::Heartbeat => "Heartbeat",
        ApiKey::IncrementalAlterConfigs => "IncrementalAlterConfigs",
        ApiKey::InitProducerId => "InitProducerId",
        ApiKey::JoinGroup => "JoinGroup",
        ApiKey::LeaveGroup => "LeaveGroup",
        ApiKey::ListOffsets => "ListOffsets",
        ApiKey::Metadata => "Metadata",
        ApiKey::Produce => "Produce",
        ApiKey::SaslAuthenticate => "SaslAuthenticate",
        ApiKey::SaslHandshake => "SaslHandshake",
        ApiKey::SyncGroup => "SyncGroup",
        _ => "a request",
    })
}

fn broken(address: &Arc<str>, source: io::Error) -> Error {
    Error::Connection { address: Arc::clone(address), source: Arc::new(source) }
}

/// First bytes of a TLS alert, which a TLS server sends to a client without TLS.
const TLS_ALERT: i32 = 0x1503;

#[derive(Debug, thiserror::Error)]
#[error("received a TLS alert")]
struct SpeaksTls;

fn is_caused_by<E: std::error::Error + 'static>(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<E>())
}

/// Returns true if the error means that the peer closed the connection.
fn is_closed_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted)
}

/// A request that was sent, and the sender for its response.
struct Sent {
    correlation_id: i32,
    request: &'static str,
    response: oneshot::Sender<Result<Bytes>>,
    at: Instant,
}

/// Publishes the end of a connection to all its handles.
#[derive(Clone)]
struct Ended {
    address: Arc<str>,
    ended: Arc<watch::Sender<Option<Error>>>,
}

impl Ended {
    /// Stores the first error and returns the stored one.
    fn with(&self, error: Error) -> Error {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert_with(|| error.clone());
            is_first
        });
        self.ended.borrow().clone().unwrap_or(error)
    }

    fn broken(&self, error: io::Error) -> Error {
        self.with(broken(&self.address, error))
    }
}

async fn write(
    mut stream: WriteHalf<Box<dyn Stream>>,
    mut calls: mpsc::UnboundedReceiver<Call>,
    sent: mpsc::UnboundedSender<Sent>,
    ended: Ended,
) {
    let mut correlation_id = 0_i32;
    loop {
        let call = tokio::select! {
            call = calls.recv() => call,
            // The reader has ended.
            () = sent.closed() => return,
        };
        let Some(Call { mut bytes, request, response }) = call else { break };
        correlation_id = correlation_id.wrapping_add(1);
        bytes[8..12].copy_from_slice(&correlation_id.to_be_bytes());
        let now = Instant::now();
        if let Err(lost) = sent.send(Sent { correlation_id, request, response, at: now }) {
            let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
            let _ = lost.0.response.send(Err(ended.broken(closed)));
            return;
        }
        let writing = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        let written = tokio::select! {
            written = writing => written,
            // The peer accepts no data, and the reader has timed out.
            () = sent.closed() => return,
        };
        if let Err(error) = written {
            // The reader detects the closed connection too and fails all pending requests.
            ended.broken(error);
            break;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut sent: mpsc::UnboundedReceiver<Sent>,
    (limit, mute): (Duration, Mute),
    unanswered: Arc<AtomicUsize>,
    has_login: bool,
    ended: Ended,
) {
    // True once the broker has answered a request other than the one for its versions.
    let mut is_served = false;
    loop {
        // First byte of a response that arrived before its request was taken from the queue.
        let mut early = None;
        let next = tokio::select! {
            biased;
            next = sent.recv() => next,
            byte = stream.read_u8() => match (byte, sent.try_recv()) {
                (Ok(byte), Ok(next)) => {
                    early = Some(byte);
                    Some(next)
                }
                (byte, _) => {
                    let unasked = || io::Error::other("received bytes without a request");
                    ended.broken(byte.err().unwrap_or_else(unasked));
                    None
                }
            },
        };
        let Some(Sent { correlation_id, request, response, at }) = next else { break };
        let read = mute.in_time(frame(&mut stream, early), at, limit).await;
        let error = match read {
            Some(Ok(bytes)) if bytes.len() >= 4 && (&bytes[..4]).get_i32() == correlation_id => {
                is_served |= request != API_VERSIONS;
                unanswered.fetch_sub(1, Ordering::AcqRel);
                let _ = response.send(Ok(bytes));
                continue;
            }
            Some(Ok(_)) => ended.with(Error::Protocol {
                address: Arc::clone(&ended.address),
                what: "received the response to another request".into(),
            }),
            Some(Err(error))
                if !is_served
                    && !has_login
                    && request != API_VERSIONS
                    && is_closed_by_peer(&error) =>
            {
                ended.with(Error::WantsLogin { address: Arc::clone(&ended.address) })
            }
            Some(Err(error)) => ended.broken(error),
            None => ended.with(Error::TimedOut { address: Arc::clone(&ended.address), request }),
        };
        let _ = response.send(Err(error));
        break;
    }
    sent.close();
    while let Some(waiting) = sent.recv().await {
        let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
        let _ = waiting.response.send(Err(ended.broken(closed)));
    }
}

async fn frame(stream: &mut ReadHalf<Box<dyn Stream>>, early: Option<u8>) -> io::Result<Bytes> {
    let mut length = [0; 4];
    let known = early.map_or(0, |byte| {
        length[0] = byte;
        1
    });
    stream.read_exact(&mut length[known..]).await?;
    let length = i32::from_be_bytes(length);
    if length >> 16 == TLS_ALERT {
        return Err(io::Error::other(SpeaksTls));
    }
    if !(0..=MAX_RESPONSE_BYTES).contains(&length) {
        return Err(io::Error::other(format!(
            "a response of {length} bytes: is the server Kafka?"
        )));
    }
    let mut bytes = BytesMut::zeroed(length as usize);
    stream.read_exact(&mut bytes).await?;
    Ok(bytes.freeze())
}
