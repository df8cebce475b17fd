//! Finds out why a broker's certificate is not accepted.
//!
//! librdkafka says only that it could not be verified. So we do the TLS handshake ourselves, with
//! the same settings, and ask OpenSSL. Nothing is sent, and the connection is closed after that.

use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use factlib_postgres::certificate::reason_and_remedy;
use openssl::{
    ssl::{HandshakeError, SslConnector, SslMethod},
    x509::{X509VerifyResult, store::X509StoreBuilder},
};
use rdkafka::ClientConfig;

use crate::{Error, ErrorKind};

/// Of the connection and of each answer.
const LIMIT: Duration = Duration::from_secs(3);

/// The error that names the flaw of the broker that `complaint` is about; none if it is found
/// to be in order, or can't be looked at.
pub(super) async fn looked_at(settings: &ClientConfig, complaint: &str) -> Option<Error> {
    // `ssl://host:port/bootstrap: …` or `sasl_ssl://host:port/1: …`
    let (_, place) = complaint.split_once("://")?;
    let (broker, _) = place.split_once('/')?;
    let (broker, settings) = (broker.to_owned(), settings.clone());
    tokio::task::spawn_blocking(move || look(&settings, &broker)).await.ok().flatten()
}

fn look(settings: &ClientConfig, broker: &str) -> Option<Error> {
    let result = shake_hands(settings, broker)?;
    let authority = match settings.get("ssl.ca.location") {
        Some(path) => {
            format!("does {path} hold the authority that signed it? kafka.tls_ca names another")
        }
        None => "name the file of the authority that signed it with kafka.tls_ca".to_owned(),
    };
    let (reason, remedy) = reason_and_remedy(result, authority);
    let what = format!("the TLS certificate of Kafka at {broker} can't be trusted: {reason}");
    Some(Error::new(ErrorKind::KafkaRefused, what).remedy(remedy))
}

/// OpenSSL's verification error, if there is one.
fn shake_hands(settings: &ClientConfig, broker: &str) -> Option<X509VerifyResult> {
    let (host, _) = broker.rsplit_once(':')?;
    let mut builder = SslConnector::builder(SslMethod::tls_client()).ok()?;
    builder.set_cert_store(X509StoreBuilder::new().ok()?.build());
    if let Some(path) = settings.get("ssl.ca.location") {
        builder.set_ca_file(path).ok()?;
    }
    let mut configuration = builder.build().configure().ok()?;
    let names = settings.get("ssl.endpoint.identification.algorithm");
    configuration.set_verify_hostname(names != Some("none"));
    let socket = broker.to_socket_addrs().ok()?;
    let socket = socket.into_iter().find_map(|at| TcpStream::connect_timeout(&at, LIMIT).ok())?;
    socket.set_read_timeout(Some(LIMIT)).ok()?;
    socket.set_write_timeout(Some(LIMIT)).ok()?;
    match configuration.connect(host.trim_matches(['[', ']']), socket) {
        Err(HandshakeError::Failure(broken)) => {
            Some(broken.ssl().verify_result()).filter(|result| *result != X509VerifyResult::OK)
        }
        _ => None,
    }
}
