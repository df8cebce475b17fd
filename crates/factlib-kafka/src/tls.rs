//! TLS connections with OpenSSL. The client verifies brokers unless the settings turn this off,
//! and reads its files again for each connection.
//!
//! The crate uses OpenSSL rather than rustls because the PostgreSQL side of factlib already
//! depends on it, and because it supports keys with a pass phrase, which Kafka's users have. The
//! rest of the crate depends only on [`Connector`].

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use openssl::{
    error::ErrorStack,
    pkey::PKey,
    ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion},
    x509::{X509, X509VerifyResult, store::X509StoreBuilder},
};
use tokio_openssl::SslStream;

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
    /// Private key of the client's certificate.
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

/// Extent to which a broker's certificate is verified.
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
    /// A local certificate or key cannot be used.
    #[error("cannot use {what}: {source}")]
    Unusable {
        /// Name of the setting.
        what: &'static str,
        /// OpenSSL's words.
        source: ErrorStack,
    },
    /// The broker's certificate is not trusted.
    #[error("the broker's certificate is not trusted: {reason}")]
    Untrusted {
        /// OpenSSL's message, such as "certificate has expired".
        reason: String,
        /// OpenSSL's number of the error (`X509_V_ERR_…`).
        code: i32,
        /// The file of the authorities to trust, if the settings name one.
        authorities: Option<String>,
    },
    /// The broker does not use TLS on this port, ended the handshake, or supports no common
    /// version.
    #[error("TLS handshake: {source}")]
    Handshake {
        /// OpenSSL's words.
        source: openssl::ssl::Error,
    },
}

impl Connector for Tls {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let settings = self.clone();
            // Building the connector reads files and blocks.
            let connector = tokio::task::spawn_blocking(move || settings.connector()).await;
            let connector = connector.map_err(io::Error::other)?.map_err(io::Error::other)?;
            let failed = |source| TlsError::Unusable { what: "the name of the broker", source };
            let mut ssl = connector.configure().map_err(io::Error::other)?;
            ssl.set_verify_hostname(self.verification == Verification::Full);
            let name = self.server_name.as_deref().unwrap_or(host);
            let ssl = ssl.into_ssl(name).map_err(failed).map_err(io::Error::other)?;
            let tcp = tcp(host, port).await?;
            let mut stream = SslStream::new(ssl, tcp).map_err(io::Error::other)?;
            let shaken = Pin::new(&mut stream).connect().await;
            shaken.map_err(|source| {
                let verified = stream.ssl().verify_result();
                match verified == X509VerifyResult::OK || self.verification == Verification::Off {
                    true => handshake(source),
                    false => io::Error::other(TlsError::Untrusted {
                        reason: verified.error_string().to_owned(),
                        code: verified.as_raw(),
                        authorities: self.authorities_file(),
                    }),
                }
            })?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Returns the I/O error of a broken connection as it is; any other error is a [`TlsError`].
fn handshake(source: openssl::ssl::Error) -> io::Error {
    match source.into_io_error() {
        Ok(broken) => broken,
        Err(source) => io::Error::other(TlsError::Handshake { source }),
    }
}

impl Tls {
    fn authorities_file(&self) -> Option<String> {
        match &self.authorities {
            Some(Pem::File(path)) => Some(path.display().to_string()),
            _ => None,
        }
    }

    fn connector(&self) -> Result<SslConnector, TlsError> {
        let unusable = |what| move |source| TlsError::Unusable { what, source };
        let mut builder = SslConnector::builder(SslMethod::tls()).map_err(unusable("OpenSSL"))?;
        let oldest = Some(SslVersion::TLS1_2);
        builder.set_min_proto_version(oldest).map_err(unusable("TLS 1.2"))?;
        if self.verification == Verification::Off {
            builder.set_verify(SslVerifyMode::NONE);
        }
        match &self.authorities {
            Some(authorities) => {
                let failed = unusable("the authorities");
                let mut store = X509StoreBuilder::new().map_err(failed)?;
                for authority in X509::stack_from_pem(&authorities.read()?).map_err(failed)? {
                    store.add_cert(authority).map_err(failed)?;
                }
                builder.set_cert_store(store.build());
            }
            // A statically linked OpenSSL does not know where this system keeps its authorities.
            None => {
                let found = openssl_probe::probe();
                let (file, folder) = (found.cert_file.as_deref(), found.cert_dir.first());
                if file.is_some() || folder.is_some() {
                    let folder = folder.map(PathBuf::as_path);
                    let loaded = builder.load_verify_locations(file, folder);
                    loaded.map_err(unusable("the system's authorities"))?;
                }
            }
        }
        if let Some(certificate) = &self.certificate {
            let failed = unusable("the client's certificate");
            let chain = X509::stack_from_pem(&certificate.read()?).map_err(failed)?;
            let mut chain = chain.into_iter();
            if let Some(own) = chain.next() {
                builder.set_certificate(&own).map_err(failed)?;
            }
            for between in chain {
                builder.add_extra_chain_cert(between).map_err(failed)?;
            }
        }
        if let Some(key) = &self.key {
            let failed = unusable("the client's key");
            let pem = key.read()?;
            let key = match &self.key_password {
                Some(KeyPassword(source)) => {
                    let password = source().map_err(|source| TlsError::File {
                        path: "the key's password".into(),
                        source,
                    })?;
                    PKey::private_key_from_pem_passphrase(&pem, password.as_bytes())
                }
                // Without this callback, OpenSSL would prompt on the terminal.
                None => PKey::private_key_from_pem_callback(&pem, |_| Ok(0)),
            };
            builder.set_private_key(&*key.map_err(failed)?).map_err(failed)?;
            builder.check_private_key().map_err(failed)?;
        }
        Ok(builder.build())
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
