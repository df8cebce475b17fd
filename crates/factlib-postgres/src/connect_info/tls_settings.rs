//! The TLS parameters of a connection string (`sslmode` and the like).

use std::path::PathBuf;

use secrecy::SecretString;

use super::{Environment, home};
use crate::{
    Result,
    settings::{Settings, SslMode, SslNegotiation, TlsVersion, invalid},
};

/// The TLS parameters of a connection string.
#[derive(Clone, Debug)]
pub(crate) struct TlsSettings {
    /// `sslmode`; none if it is not set.
    pub mode: Option<SslMode>,
    pub negotiation: SslNegotiation,
    pub root_cert: RootCert,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub key_password: Option<SecretString>,
    pub server_name_indication: bool,
    /// Certificate revocation lists: a file and a folder.
    pub revocation_file: Option<PathBuf>,
    pub revocation_folder: Option<PathBuf>,
    pub min_version: TlsVersion,
    pub max_version: Option<TlsVersion>,
}

impl TlsSettings {
    /// Returns the effective mode. If none is set, it is libpq's default for connections within this
    /// host, and `verify-full` over a network, where, unlike with libpq, nobody shall be able to pose
    /// as the server.
    pub fn mode(&self, local: bool) -> SslMode {
        let default = if local { SslMode::Prefer } else { SslMode::VerifyFull };
        self.mode.unwrap_or(default)
    }
}

/// Certificate authorities that are trusted to sign the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// Those that the operating system trusts.
    System,
    /// Those in a file.
    File(PathBuf),
    /// None named: `verify-full` then trusts those of the operating system.
    Unspecified,
}

pub(super) fn tls(settings: &Settings<'_>, env: Environment<'_>) -> Result<TlsSettings> {
    let default = |name: &str| home(env).map(|home| home.join(".postgresql").join(name));
    let root_cert = match settings.text("sslrootcert") {
        Some(system) if system == "system" => RootCert::System,
        Some(path) => RootCert::File(path.into()),
        None => default("root.crt")
            .filter(|path| path.exists())
            .map_or(RootCert::Unspecified, RootCert::File),
    };
    let mode = match settings.text("sslmode") {
        None if root_cert == RootCert::System => Some(SslMode::VerifyFull),
        None => None,
        Some(_) => Some(settings.choice("sslmode")?),
    };
    if root_cert == RootCert::System && mode != Some(SslMode::VerifyFull) {
        // Anyone can get a certificate that the system trusts, for some host.
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
    let revocation_file = settings.text("sslcrl").map(PathBuf::from);
    let revocation_folder = settings.text("sslcrldir").map(PathBuf::from);
    let no_lists = revocation_file.is_none() && revocation_folder.is_none();
    let (cert, key) = (settings.text("sslcert"), settings.text("sslkey"));
    Ok(TlsSettings {
        mode,
        negotiation,
        root_cert,
        // Only the default files may be missing.
        cert: cert
            .map(PathBuf::from)
            .or_else(|| default("postgresql.crt").filter(|path| path.exists())),
        key: key
            .map(PathBuf::from)
            .or_else(|| default("postgresql.key").filter(|path| path.exists())),
        key_password: settings.text("sslpassword").map(SecretString::from),
        server_name_indication: settings.number::<i32>("sslsni")? != Some(0),
        revocation_file: revocation_file
            .or_else(|| default("root.crl").filter(|path| no_lists && path.exists())),
        revocation_folder,
        min_version,
        max_version,
    })
}
