//! What TLS needs to know.

use std::path::PathBuf;

use secrecy::SecretString;

use super::{Environment, home};
use crate::{
    Result,
    settings::{Settings, SslMode, SslNegotiation, TlsVersion, invalid},
};

/// What TLS needs to know.
#[derive(Clone, Debug)]
pub(crate) struct TlsSettings {
    /// What `sslmode` says; none where it is not given.
    pub mode: Option<SslMode>,
    pub negotiation: SslNegotiation,
    pub root_cert: RootCert,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub key_password: Option<SecretString>,
    pub server_name_indication: bool,
    /// Lists of certificates that their authorities have revoked: a file, a folder.
    pub revoked: Option<PathBuf>,
    pub revoked_folder: Option<PathBuf>,
    pub min_version: TlsVersion,
    pub max_version: Option<TlsVersion>,
}

impl TlsSettings {
    /// The mode that holds. Where none is given: on this host libpq's default, as nobody is on the
    /// way; over a network, unlike libpq, the one that lets nobody pose as the server.
    pub fn mode(&self, local: bool) -> SslMode {
        let default = if local { SslMode::Prefer } else { SslMode::VerifyFull };
        self.mode.unwrap_or(default)
    }
}

/// Whom we trust to sign the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// What the operating system trusts.
    System,
    /// The certificates in a file.
    File(PathBuf),
    /// What nobody has said: verify-full trusts what the system does.
    Unsaid,
}

pub(super) fn tls(settings: &Settings<'_>, env: Environment<'_>) -> Result<TlsSettings> {
    let default = |name: &str| home(env).map(|home| home.join(".postgresql").join(name));
    let root_cert = match settings.text("sslrootcert") {
        Some(system) if system == "system" => RootCert::System,
        Some(path) => RootCert::File(path.into()),
        None => default("root.crt")
            .filter(|path| path.exists())
            .map_or(RootCert::Unsaid, RootCert::File),
    };
    let mode = match settings.text("sslmode") {
        None if root_cert == RootCert::System => Some(SslMode::VerifyFull),
        None => None,
        Some(_) => Some(settings.choice("sslmode")?),
    };
    if root_cert == RootCert::System && mode != Some(SslMode::VerifyFull) {
        // Anyone can get a certificate that the system trusts.
        return Err(invalid("sslmode", "must be verify-full with sslrootcert=system"));
    }
    let negotiation = settings.choice("sslnegotiation")?;
    if negotiation == SslNegotiation::Direct && mode < Some(SslMode::Require) {
        return Err(invalid(
            "sslmode",
            "must be require, verify-ca or verify-full with sslnegotiation=direct",
        ));
    }
    let min_version = settings.choice("ssl_min_protocol_version")?;
    let max_version = match settings.text("ssl_max_protocol_version") {
        Some(_) => Some(settings.choice("ssl_max_protocol_version")?),
        None => None,
    };
    if max_version.is_some_and(|max| max < min_version) {
        return Err(invalid("ssl_max_protocol_version", "is lower than ssl_min_protocol_version"));
    }
    let revoked = settings.text("sslcrl").map(PathBuf::from);
    let revoked_folder = settings.text("sslcrldir").map(PathBuf::from);
    let unsaid = revoked.is_none() && revoked_folder.is_none();
    let (cert, key) = (settings.text("sslcert"), settings.text("sslkey"));
    Ok(TlsSettings {
        mode,
        negotiation,
        root_cert,
        // Only the default ones may be missing.
        cert: cert
            .map(PathBuf::from)
            .or_else(|| default("postgresql.crt").filter(|path| path.exists())),
        key: key
            .map(PathBuf::from)
            .or_else(|| default("postgresql.key").filter(|path| path.exists())),
        key_password: settings.text("sslpassword").map(SecretString::from),
        server_name_indication: settings.number::<i32>("sslsni")? != Some(0),
        revoked: revoked.or_else(|| default("root.crl").filter(|path| unsaid && path.exists())),
        revoked_folder,
        min_version,
        max_version,
    })
}
