//! TLS connections with rustls. The client verifies brokers unless the settings turn this off,
//! and reads its files again for each connection.
//!
//! It supports keys with a pass phrase (PKCS#8), which Kafka's users have. The rest of the crate
//! depends only on [`Connector`].

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use factlib_tls::{
    ClientConfig, Options,
    authorities::{self, PemError},
    identity::{Identity, Key, KeyError, chain_from_pem},
    refusal::{HandshakeFailure, handshake_failure, untrusted},
    rustls,
};
pub use factlib_tls::{Verification, refusal::Problem};

use crate::connector::{Connecting, Connector, Stream, tcp};

/// A connector that uses TLS 1.2 or newer. By default it trusts the system's certificate
/// authorities and verifies that the certificate matches the host.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// Certificate authorities to trust instead of the system's.
    pub authorities: Option<Pem>,
    /// Certificate of the client, followed by any intermediate certificates.
    pub certificate: Option<Pem>,
    /// Private key of the client's certificate, if it is not in the same PEM.
    pub key: Option<Pem>,
    /// Pass phrase of the private key.
    pub key_password: Option<KeyPassword>,
    /// Name in the brokers' certificates, if it differs from the host.
    pub server_name: Option<String>,
    /// Extent to which the brokers' certificates are verified.
    pub verification: Verification,
}

/// PEM text, or the file that contains it.
#[derive(Clone)]
pub enum Pem {
    /// A file, read again for each connection.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

/// Pass phrase of a private key, fetched for each connection.
#[derive(Clone)]
pub struct KeyPassword(Arc<dyn Fn() -> io::Result<String> + Send + Sync>);

impl KeyPassword {
    /// Uses a fixed pass phrase.
    pub fn new(password: impl Into<String>) -> Self {
        let password = password.into();
        KeyPassword::from_source(move || Ok(password.clone()))
    }

    /// Calls `source` for each connection.
    pub fn from_source(source: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        KeyPassword(Arc::new(source))
    }
}

/// Failure to set up an encrypted connection: the inner error of the [`io::Error`] that the
/// connector returns.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A local file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The authorities' certificates cannot be used.
    #[error("cannot use the authorities: {source}")]
    Authorities {
        /// The reason.
        source: PemError,
    },
    /// The system's certificates cannot be read.
    #[error("cannot use the system's authorities: {source}")]
    System {
        /// The reason.
        source: io::Error,
    },
    /// The client's certificate cannot be used.
    #[error("cannot use the client's certificate: {source}")]
    Certificate {
        /// The reason.
        source: PemError,
    },
    /// The client's key cannot be used.
    #[error("cannot use the client's key: {source}")]
    Key {
        /// The reason.
        source: KeyError,
    },
    /// No certificate can hold the broker's name.
    #[error("{name} is neither the name of a host nor an address")]
    Name {
        /// The name.
        name: String,
    },
    /// The settings exclude each other.
    #[error("cannot set TLS up: {source}")]
    Setup {
        /// The reason.
        source: rustls::Error,
    },
    /// The broker's certificate is not trusted.
    #[error("the broker's certificate is not trusted: {reason}")]
    Untrusted {
        /// The reason, such as "it expired at 2026-01-01T00:00:00Z".
        reason: String,
        /// The kind of the reason.
        problem: Problem,
        /// The file of the authorities to trust, if the settings name one.
        authorities: Option<String>,
    },
    /// The broker does not use TLS on this port, or ended the handshake.
    #[error("TLS handshake: {source}")]
    Handshake {
        /// The reason.
        source: io::Error,
    },
    /// The broker has no version of TLS, or no cipher suite, in common with this client.
    #[error(
        "TLS handshake: the broker has neither TLS 1.2 nor 1.3 with a common cipher suite: {source}"
    )]
    Incompatible {
        /// The reason.
        source: io::Error,
    },
}

impl Connector for Tls {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let settings = self.clone();
            // Building the configuration reads files and blocks.
            let config = tokio::task::spawn_blocking(move || settings.config()).await;
            let config = config.map_err(io::Error::other)?.map_err(io::Error::other)?;
            let name = self.server_name.as_deref().unwrap_or(host);
            let name = factlib_tls::server_name(name)
                .map_err(|_| io::Error::other(TlsError::Name { name: name.to_owned() }))?;
            let tcp = tcp(host, port).await?;
            let stream = factlib_tls::connect(config, name, tcp).await;
            let stream = stream.map_err(|error| self.failed_handshake(error))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn is_encrypted(&self) -> bool {
        true
    }
}

impl Tls {
    /// Returns the I/O error of a broken connection as it is; any other error is a [`TlsError`].
    fn failed_handshake(&self, source: io::Error) -> io::Error {
        if let Some(untrusted) = untrusted(&source) {
            return io::Error::other(TlsError::Untrusted {
                reason: untrusted.reason,
                problem: untrusted.problem,
                authorities: self.authorities_file(),
            });
        }
        match handshake_failure(&source) {
            Some(HandshakeFailure::Incompatible) => {
                io::Error::other(TlsError::Incompatible { source })
            }
            Some(_) => io::Error::other(TlsError::Handshake { source }),
            None if source.get_ref().is_some() => io::Error::other(TlsError::Handshake { source }),
            None => source,
        }
    }

    fn authorities_file(&self) -> Option<String> {
        match &self.authorities {
            Some(Pem::File(path)) => Some(path.display().to_string()),
            _ => None,
        }
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let trusted = match &self.authorities {
            Some(authorities) => authorities::from_pem(&authorities.read()?)
                .map_err(|source| TlsError::Authorities { source })?,
            None if self.verification == Verification::Off => Vec::new(),
            None => authorities::system().map_err(|source| TlsError::System { source })?,
        };
        let identity = match &self.certificate {
            Some(certificate) => {
                let key = self.key.as_ref().unwrap_or(certificate);
                Some(self.identity(certificate, key)?)
            }
            None => None,
        };
        let verification = self.verification;
        let options = Options { verification, trusted, identity, ..Options::default() };
        options.into_config().map_err(|source| TlsError::Setup { source })
    }

    fn identity(&self, certificate: &Pem, key: &Pem) -> Result<Identity, TlsError> {
        let chain = chain_from_pem(&certificate.read()?)
            .map_err(|source| TlsError::Certificate { source })?;
        let password = match &self.key_password {
            Some(KeyPassword(source)) => {
                let path = "the key's password".into();
                Some(source().map_err(|source| TlsError::File { path, source })?)
            }
            None => None,
        };
        Key::from_pem(&key.read()?, password.as_deref())
            .and_then(|key| Identity::new(chain, key))
            .map_err(|source| TlsError::Key { source })
    }
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Pem::File(path) => {
                std::fs::read(path).map_err(|source| TlsError::File { path: path.clone(), source })
            }
            Pem::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Pem::File(path.to_owned())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            // The text may be a private key.
            Pem::Text(_) => f.write_str("Text"),
        }
    }
}

impl fmt::Debug for KeyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPassword")
    }
}
