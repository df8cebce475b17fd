//! Settings of a TLS connection, and its handshake.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, Error, SupportedProtocolVersion,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{authorities::RevocationList, identity::Identity, verifier::Verifier};

/// Settings of a TLS connection.
#[derive(Debug)]
pub struct Options {
    /// Extent to which the server's certificate is verified.
    pub verification: Verification,
    /// Certificates to trust. A server may show one of them, or one that they signed.
    pub trusted: Vec<CertificateDer<'static>>,
    /// Revocation lists. If this is set, there has to be one of each authority in the chain, and a
    /// certificate that is trusted by itself is refused, as is one of version 1.
    pub revocation_lists: Option<Vec<RevocationList>>,
    /// Certificate to show if the server requests one.
    pub identity: Option<Identity>,
    /// Oldest and newest version of TLS to offer.
    pub versions: (Version, Version),
    /// Protocol to request (ALPN).
    pub protocol: Option<&'static str>,
    /// Whether the server is told the name in clear (SNI). Addresses are not sent.
    pub server_name_indication: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verification: Verification::Full,
            trusted: Vec::new(),
            revocation_lists: None,
            identity: None,
            versions: (Version::Tls1_2, Version::Tls1_3),
            protocol: None,
            server_name_indication: true,
        }
    }
}

/// Extent to which a server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Verifies authority, validity period and name.
    #[default]
    Full,
    /// Verifies authority and validity period, so any certificate of the authority passes.
    AuthorityOnly,
    /// Verifies nothing. An attacker on the network can read and change all traffic.
    Off,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls1_2,
    /// TLS 1.3.
    Tls1_3,
}

impl Options {
    /// Makes the configuration for rustls.
    ///
    /// # Errors
    /// One of rustls, if the versions exclude each other.
    pub fn into_config(self) -> Result<ClientConfig, Error> {
        // ring, because it compiles in seconds and needs no CMake, and links against musl.
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let Options { verification, trusted, revocation_lists, .. } = self;
        let verifier = Verifier::new(verification, trusted, revocation_lists, algorithms);
        let (oldest, newest) = self.versions;
        let all = [(Version::Tls1_2, &TLS12), (Version::Tls1_3, &TLS13)];
        let versions = all.iter().filter(|(version, _)| (oldest..=newest).contains(version));
        let versions: Vec<&SupportedProtocolVersion> =
            versions.map(|(_, version)| *version).collect();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.identity {
            Some(Identity(key)) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.extend(self.protocol.map(|name| name.as_bytes().to_vec()));
        config.enable_sni = self.server_name_indication;
        // Each connection verifies the server anew.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Reads the name of a server: a host's name or an IP address.
pub fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(host.to_owned())
}

/// Performs the handshake.
///
/// # Errors
/// [`refusal`](crate::refusal) explains them.
pub async fn connect<S>(
    config: ClientConfig,
    name: ServerName<'static>,
    stream: S,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
