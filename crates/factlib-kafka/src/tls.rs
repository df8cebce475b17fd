//! TLS by OpenSSL: brokers are verified unless the settings say otherwise, files are read again
//! at each connection.
//!
//! OpenSSL and not rustls, because the PostgreSQL side of factlib has OpenSSL already and one TLS
//! stack is enough, and because it takes keys behind a pass phrase, which Kafka's users have. The
//! rest of the crate knows only [`Connector`].

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

/// A connector with TLS 1.2 or newer. Unless told otherwise it trusts the system's authorities,
/// and verifies that the certificate is for the host that it connects to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The authorities to trust in place of the system's.
    pub authorities: Option<Pem>,
    /// The client's certificate, with those between it and its authority behind it.
    pub certificate: Option<Pem>,
    /// The key of the client's certificate.
    pub key: Option<Pem>,
    /// The pass phrase of the key.
    pub key_password: Option<KeyPassword>,
    /// The name that the brokers' certificates have, where it is not the host's.
    pub server_name: Option<String>,
    /// The part of the brokers' certificates that is verified.
    pub verification: Verification,
}

/// PEM text, or a file with it.
#[derive(Clone)]
pub enum Pem {
    /// Read again at each connection.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

/// The part of a broker's certificate that is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Its authority, its time and its name.
    #[default]
    Full,
    /// Its authority and its time: any certificate of the authority is as good as the broker's.
    AuthorityOnly,
    /// Nothing: whoever is in between reads and changes everything.
    Off,
}

/// The pass phrase of a key, asked for at each connection.
#[derive(Clone)]
pub struct KeyPassword(Arc<dyn Fn() -> io::Result<String> + Send + Sync>);

impl KeyPassword {
    /// One that stays.
    pub fn new(password: impl Into<String>) -> Self {
        let password = password.into();
        KeyPassword::from_source(move || Ok(password.clone()))
    }

    /// What the source has at that time.
    pub fn from_source(source: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        KeyPassword(Arc::new(source))
    }
}

/// The reason why there is no encrypted connection. It is the inner error of the [`io::Error`]
/// that the connector gives.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of this side can't be read.
    #[error("cannot read {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A certificate or key of this side can't be used.
    #[error("cannot use {what}: {source}")]
    Unusable {
        /// The setting.
        what: &'static str,
        /// OpenSSL's words.
        source: ErrorStack,
    },
    /// The broker's certificate is not trusted.
    #[error("the broker's certificate is not trusted: {reason}")]
    Untrusted {
        /// OpenSSL's words, such as "certificate has expired".
        reason: String,
        /// OpenSSL's number for them (`X509_V_ERR_…`).
        code: i32,
    },
    /// The broker does not speak TLS there, ended the handshake, or shares no version with us.
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
            // It reads files, and the system's authorities are many.
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
                    }),
                }
            })?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// A broken connection stays one; all else is TLS's.
fn handshake(source: openssl::ssl::Error) -> io::Error {
    match source.into_io_error() {
        Ok(broken) => broken,
        Err(source) => io::Error::other(TlsError::Handshake { source }),
    }
}

impl Tls {
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
            // An OpenSSL that is built in does not know where this system has them.
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
                    let asked = source().map_err(|source| TlsError::File {
                        path: "the key's password".into(),
                        source,
                    })?;
                    PKey::private_key_from_pem_passphrase(&pem, asked.as_bytes())
                }
                // Without one, OpenSSL would ask the terminal.
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
            // It may be a key.
            Pem::Text(_) => f.write_str("Text"),
        }
    }
}

impl fmt::Debug for KeyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPassword")
    }
}
