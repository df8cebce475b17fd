//! Sends one request for which `factlib_kafka::Client` has no call, to the first broker of a
//! listener without login. Brokers in KRaft mode forward it to the controller.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Error, ErrorKind, Result};

/// Time limit for a response.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Sends a request in this version, and returns the response. `what` is what fails otherwise.
pub(crate) async fn send<R: Request>(
    bootstrap: &str,
    request: &R,
    version: i16,
    what: &str,
) -> Result<R::Response> {
    let failed = |cause: String| failed(what).caused_by(cause);
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("factlib-testing")));
    let mut body = BytesMut::new();
    let encoded = header
        .encode(&mut body, R::header_version(version))
        .and_then(|()| request.encode(&mut body, version));
    encoded.map_err(|error| failed(error.to_string()))?;
    let exchange = timeout(LIMIT, exchange(bootstrap, &body)).await;
    let exchange = exchange.map_err(|_| failed("no broker answers".into()))?;
    let mut response = exchange.map_err(|error| failed(error.to_string()))?;
    ResponseHeader::decode(&mut response, R::Response::header_version(version))
        .and_then(|_| R::Response::decode(&mut response, version))
        .map_err(|error| failed(error.to_string()))
}

/// Turns the first error code other than 0 into an error.
pub(crate) fn check(codes: impl IntoIterator<Item = i16>, what: &str) -> Result<()> {
    match codes.into_iter().find(|code| *code != 0) {
        None => Ok(()),
        Some(code) => Err(failed(what).caused_by(format!("the broker answers with error {code}"))),
    }
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, what)
}

async fn exchange(bootstrap: &str, body: &[u8]) -> std::io::Result<Bytes> {
    let mut request = BytesMut::with_capacity(body.len() + 4);
    request.put_u32(body.len() as u32);
    request.put_slice(body);
    let mut failed = None;
    for broker in bootstrap.split(',') {
        let mut stream = match TcpStream::connect(broker).await {
            Ok(stream) => stream,
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        stream.write_all(&request).await?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let mut response = BytesMut::zeroed((&length[..]).get_u32() as usize);
        stream.read_exact(&mut response).await?;
        return Ok(response.freeze());
    }
    Err(failed.unwrap_or_else(|| std::io::Error::other("no address of a broker")))
}
