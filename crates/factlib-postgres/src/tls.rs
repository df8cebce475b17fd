//! Negotiates TLS as libpq does: trusted authorities, checks, handshake.
//!
//! One rule differs: without `sslmode`, a connection over a network is fully verified.
//!
//! # Failure
//! `Tls` for a certificate that `sslmode` does not accept, `Config` if TLS can't be set up,
//! `Unavailable` for a file that can't be read and for a handshake that breaks off.

use std::{fs, io, path::Path};

use factlib_tls::{
    ClientConfig, Options, ServerName, Verification, Version, authorities,
    identity::{Identity, Key, chain_from_pem},
    refusal::{HandshakeFailure, handshake_failure, is_own_certificate_refused, untrusted},
    rustls::pki_types::CertificateDer,
    tls_server_end_point,
};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    connect_info::{Host, RootCert, TlsSettings},
    settings::{SslMode, SslNegotiation, TlsVersion, invalid},
    stream::{Stream, TlsFacts},
};
use crate::{Error, ErrorKind, Result};

/// The server's answer to the request for TLS.
pub(super) enum Answer {
    /// TLS is established.
    Encrypted(Stream),
    /// The server does not offer TLS; the connection can still be used.
    Declined(Stream),
}

/// Requests TLS, unless it starts directly, and performs the handshake.
pub(super) async fn negotiate(
    stream: Stream,
    host: &Host,
    settings: &TlsSettings,
) -> Result<Answer> {
    let local = stream.is_local();
    let mut socket = match stream.into_tcp() {
        Ok(socket) => socket,
        // No TLS over a Unix socket, as in libpq.
        Err(stream) => return Ok(Answer::Declined(stream)),
    };
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("cannot ask PostgreSQL at {host} for TLS"))
            .caused_by(error)
    };
    let verification = verification(settings, local);
    let config = config(settings, verification, host)?;
    let name = server_name(host, verification, &socket)?;
    if settings.negotiation == SslNegotiation::Postgres {
        let mut request = bytes::BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await.map_err(failed)?;
        // Read exactly one byte: bytes that follow it in clear must reach the TLS handshake, which
        // refuses them, and not our buffer (CVE-2021-23222).
        match socket.read_u8().await.map_err(failed)? {
            b'S' => {}
            b'N' => return Ok(Answer::Declined(Stream::from_tcp(socket, local))),
            // An error in clear, which anybody in between may have written (CVE-2024-10977).
            _ => return Err(failed(io::Error::other("the answer is neither yes nor no"))),
        }
    }

    let buffered = BufReader::with_capacity(64 << 10, socket);
    let stream = factlib_tls::connect(config, name, buffered).await;
    let stream = stream.map_err(|error| failed_handshake(host, settings, error))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let facts = TlsFacts {
        verified: verification != Verification::Off,
        channel_binding: certificate.and_then(tls_server_end_point),
    };
    Ok(Answer::Encrypted(Stream::encrypted(stream, local, facts)))
}

fn verification(settings: &TlsSettings, local: bool) -> Verification {
    match (settings.mode(local), &settings.root_cert) {
        (SslMode::VerifyFull, _) => Verification::Full,
        (SslMode::VerifyCa, _) => Verification::AuthorityOnly,
        // As in libpq, an existing root certificate is used whatever the mode.
        (_, RootCert::File(path)) if path.exists() => Verification::AuthorityOnly,
        _ => Verification::Off,
    }
}

/// Returns the name to find in the certificate, which is also sent to the server.
fn server_name(
    host: &Host,
    verification: Verification,
    socket: &TcpStream,
) -> Result<ServerName<'static>> {
    if verification == Verification::Full && host.name.is_empty() {
        return Err(invalid("host", "is needed beside hostaddr to check the certificate against"));
    }
    match factlib_tls::server_name(&host.name) {
        Ok(name) => Ok(name),
        Err(error) if verification == Verification::Full => Err(unusable(host, error)),
        // A name that no certificate can hold. The address stands for it, and is not sent.
        Err(_) => {
            let peer = socket.peer_addr().map_err(|error| unusable(host, error))?;
            Ok(peer.ip().into())
        }
    }
}

fn config(settings: &TlsSettings, verification: Verification, host: &Host) -> Result<ClientConfig> {
    let mut options = Options {
        verification,
        versions: versions(settings)?,
        server_name_indication: settings.server_name_indication && !host.name.is_empty(),
        ..Options::default()
    };
    if verification != Verification::Off {
        let root_cert = match &settings.root_cert {
            RootCert::Unspecified if verification == Verification::Full => &RootCert::System,
            root_cert => root_cert,
        };
        options.trusted = root_certificates(root_cert)?;
        options.revocation_lists = revocation_lists(settings)?;
    }
    if settings.negotiation == SslNegotiation::Direct {
        options.protocol = Some("postgresql");
    }
    if let Some(cert) = &settings.cert {
        let key = settings.key.as_deref().unwrap_or(cert);
        options.identity = Some(identity(cert, key, settings)?);
    }
    options.into_config().map_err(|error| unusable(host, error))
}

/// Returns the oldest and the newest version of TLS that the settings allow.
fn versions(settings: &TlsSettings) -> Result<(Version, Version)> {
    // Lower minimums than this one hold anyway.
    let oldest = match settings.min_version {
        TlsVersion::Tls1 | TlsVersion::Tls1_1 | TlsVersion::Tls1_2 => Version::Tls1_2,
        TlsVersion::Tls1_3 => Version::Tls1_3,
    };
    let newest = match settings.max_version {
        None | Some(TlsVersion::Tls1_3) => Version::Tls1_3,
        Some(TlsVersion::Tls1_2) => Version::Tls1_2,
        Some(TlsVersion::Tls1 | TlsVersion::Tls1_1) => {
            return Err(invalid(
                "ssl_max_protocol_version",
                "must be TLSv1.2 or TLSv1.3: older versions are not supported",
            ));
        }
    };
    Ok((oldest, newest))
}

fn root_certificates(root_cert: &RootCert) -> Result<Vec<CertificateDer<'static>>> {
    match root_cert {
        RootCert::File(path) => authorities::from_pem(&read("sslrootcert", path)?)
            .map_err(|error| unreadable("sslrootcert", path).caused_by(error)),
        RootCert::System => authorities::system().map_err(|error| {
            invalid("sslrootcert", "names the system's certificates, and they can't be read")
                .caused_by(error)
        }),
        RootCert::Unspecified => {
            Err(invalid("sslrootcert", "is needed to verify the server's certificate")
                .with_remedy("name a file, or system"))
        }
    }
}

/// Loads the revocation lists, if the settings name any: certificates on them are refused, as are
/// those whose authority has no list.
fn revocation_lists(settings: &TlsSettings) -> Result<Option<Vec<authorities::RevocationList>>> {
    let (file, folder) = (&settings.revocation_file, &settings.revocation_folder);
    if file.is_none() && folder.is_none() {
        return Ok(None);
    }
    let mut lists = Vec::new();
    if let Some(path) = file {
        let found = authorities::revocation_lists(&read("sslcrl", path)?);
        lists.extend(found.map_err(|error| unreadable("sslcrl", path).caused_by(error))?);
    }
    if let Some(folder) = folder {
        let failed = |error: io::Error| unreadable("sslcrldir", folder).caused_by(error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_file() {
                // Other files may be beside the lists.
                let found = authorities::revocation_lists(&read("sslcrldir", &path)?);
                lists.extend(found.unwrap_or_default());
            }
        }
    }
    Ok(Some(lists))
}

fn identity(cert: &Path, key: &Path, settings: &TlsSettings) -> Result<Identity> {
    let chain = chain_from_pem(&read("sslcert", cert)?)
        .map_err(|error| unreadable("sslcert", cert).caused_by(error))?;
    let password = settings.key_password.as_ref().map(ExposeSecret::expose_secret);
    Key::from_pem(&read("sslkey", key)?, password)
        .and_then(|key| Identity::new(chain, key))
        .map_err(|error| unreadable("sslkey", key).caused_by(error))
}

fn read(keyword: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| unreadable(keyword, path).caused_by(error))
}

/// Returns a transient error: a file that is being replaced may be missing for a moment, or not
/// match its counterpart.
fn unreadable(keyword: &str, path: &Path) -> Error {
    let message = format!(
        "{keyword} of the PostgreSQL connection string names {}, which can't be used",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, message)
}

fn unusable(host: &Host, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Config, format!("cannot prepare TLS for PostgreSQL at {host}"))
        .caused_by(error)
}

/// Returns the error for a handshake that fails, for example because the settings do not accept the
/// server's certificate.
fn failed_handshake(host: &Host, settings: &TlsSettings, error: io::Error) -> Error {
    let Some(untrusted) = untrusted(&error) else {
        let message = format!("the TLS handshake with PostgreSQL at {host} fails");
        let remedy = match handshake_failure(&error) {
            Some(HandshakeFailure::Incompatible) => Some(
                "TLS 1.2 or 1.3 is needed: compare ssl_min_protocol_version and \
                 ssl_max_protocol_version of both sides, and ssl_ciphers of the server",
            ),
            _ => None,
        };
        let mut failed = Error::new(ErrorKind::Unavailable, message).caused_by(error);
        if let Some(remedy) = remedy {
            failed = failed.with_remedy(remedy);
        }
        return explain_refused_certificate(host, settings, failed);
    };
    let remedy = untrusted.problem.remedy().map(str::to_owned);
    let remedy = remedy.unwrap_or_else(|| match &settings.root_cert {
        RootCert::File(path) => {
            format!("does {} hold the authority that signed it?", path.display())
        }
        _ => "name the file of the authority that signed it with sslrootcert".to_owned(),
    });
    let message = format!(
        "the TLS certificate of PostgreSQL at {host} can't be trusted: {}",
        untrusted.reason
    );
    Error::new(ErrorKind::Tls, message).with_remedy(remedy)
}

/// Replaces the error if it says that the server refused our own certificate. With TLS 1.3, this
/// shows at the first read after the handshake.
pub(super) fn explain_refused_certificate(
    host: &Host,
    settings: &TlsSettings,
    error: Error,
) -> Error {
    if !is_own_certificate_refused(&error) {
        return error;
    }
    let message = format!("PostgreSQL at {host} refuses our TLS certificate");
    let mut kind = ErrorKind::Tls;
    let remedy = match &settings.cert {
        // Transient, because the file is read at each attempt and may be renewed soon.
        Some(path) => {
            kind = ErrorKind::Unavailable;
            format!(
                "has an authority in the server's ssl_ca_file signed {}, and is it \
            still valid?",
                path.display()
            )
        }
        None => "name one, and its key, with sslcert and sslkey".to_owned(),
    };
    Error::new(kind, message).with_remedy(remedy).caused_by(error)
}
