//! Negotiates TLS as libpq does: trusted authorities, checks, handshake.
//!
//! One rule differs: without `sslmode`, a connection over a network is fully verified.
//!
//! # Failure
//! `Tls` for a certificate that `sslmode` does not accept, `Config` if OpenSSL can't be set up,
//! `Unavailable` for a file that can't be read and for a handshake that breaks off.

use std::{fs, io, path::Path, pin::Pin};

use openssl::{
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    ssl::{
        SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslRef, SslVerifyMode,
        SslVersion,
    },
    x509::{
        X509VerifyResult,
        store::{X509Lookup, X509StoreBuilder},
        verify::X509VerifyFlags,
    },
};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_openssl::SslStream;

use super::{
    connect_info::{Host, RootCert, TlsSettings},
    settings::{SslMode, SslNegotiation, TlsVersion, invalid},
    stream::{Stream, TlsFacts},
};
use crate::{
    Error, ErrorKind, Result,
    certificate::{is_certificate_refused, reason_and_remedy},
};

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
    let verify = verification(settings, local);
    let connector = connector(settings, verify, host)?;
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

    let mut configuration = connector.configure().map_err(|error| unusable(host, error))?;
    configuration.set_verify_hostname(verify == Verify::Host);
    configuration
        .set_use_server_name_indication(settings.server_name_indication && !host.name.is_empty());
    let ssl = configuration.into_ssl(&host.name).map_err(|error| unusable(host, error))?;
    let buffered = BufReader::with_capacity(64 << 10, socket);
    let mut stream = SslStream::new(ssl, buffered).map_err(|error| unusable(host, error))?;
    if let Err(error) = Pin::new(&mut stream).connect().await {
        let result = stream.ssl().verify_result();
        if verify != Verify::Nothing && result != X509VerifyResult::OK {
            return Err(untrusted(host, settings, result));
        }
        let message = format!("the TLS handshake with PostgreSQL at {host} fails");
        let error = Error::new(ErrorKind::Unavailable, message).caused_by(error);
        return Err(explain_refused_certificate(host, settings, error));
    }
    let facts = TlsFacts {
        verified: verify != Verify::Nothing,
        channel_binding: tls_server_end_point(stream.ssl()),
    };
    Ok(Answer::Encrypted(Stream::encrypted(stream, local, facts)))
}

/// Extent to which the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    Host,
}

fn verification(settings: &TlsSettings, local: bool) -> Verify {
    match (settings.mode(local), &settings.root_cert) {
        (SslMode::VerifyFull, _) => Verify::Host,
        (SslMode::VerifyCa, _) => Verify::Chain,
        // As in libpq, an existing root certificate is used whatever the mode.
        (_, RootCert::File(path)) if path.exists() => Verify::Chain,
        _ => Verify::Nothing,
    }
}

fn connector(settings: &TlsSettings, verify: Verify, host: &Host) -> Result<SslConnector> {
    let unusable = |error| unusable(host, error);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(unusable)?;
    let (min, max) = (settings.min_version.into(), settings.max_version.map(Into::into));
    builder.set_min_proto_version(Some(min)).map_err(unusable)?;
    builder.set_max_proto_version(max).map_err(unusable)?;
    // By default the builder trusts the system's authorities; only those of the settings count.
    builder.set_cert_store(X509StoreBuilder::new().map_err(unusable)?.build());
    if verify == Verify::Nothing {
        builder.set_verify(SslVerifyMode::NONE);
    } else {
        let root_cert = match &settings.root_cert {
            RootCert::Unspecified if verify == Verify::Host => &RootCert::System,
            root_cert => root_cert,
        };
        load_root_certificates(&mut builder, root_cert)?;
        load_revocation_lists(&mut builder, settings)?;
        builder.set_verify(SslVerifyMode::PEER);
        if verify == Verify::Host && host.name.is_empty() {
            return Err(invalid(
                "host",
                "is needed beside hostaddr to check the certificate against",
            ));
        }
    }
    if settings.negotiation == SslNegotiation::Direct {
        builder.set_alpn_protos(b"\x0apostgresql").map_err(unusable)?;
    }
    if let Some(cert) = &settings.cert {
        let key = settings.key.as_deref().unwrap_or(cert);
        set_client_certificate(&mut builder, cert, key, settings)?;
    }
    Ok(builder.build())
}

fn load_root_certificates(builder: &mut SslConnectorBuilder, root_cert: &RootCert) -> Result<()> {
    match root_cert {
        RootCert::File(path) => {
            // Read first, because OpenSSL does not say that the file is missing.
            read("sslrootcert", path)?;
            let failed = |error| unreadable("sslrootcert", path).caused_by(error);
            builder.set_ca_file(path).map_err(failed)
        }
        RootCert::System => {
            let failed = |error| {
                invalid("sslrootcert", "names the system's certificates, and they can't be read")
                    .caused_by(error)
            };
            builder.set_default_verify_paths().map_err(failed)?;
            // A bundled OpenSSL does not know this system's directories.
            let found = openssl_probe::probe();
            for directory in &found.cert_dir {
                builder.load_verify_locations(None, Some(directory)).map_err(failed)?;
            }
            match &found.cert_file {
                Some(file) => builder.set_ca_file(file).map_err(failed),
                None => Ok(()),
            }
        }
        RootCert::Unspecified => {
            Err(invalid("sslrootcert", "is needed to verify the server's certificate")
                .with_remedy("name a file, or system"))
        }
    }
}

/// Loads the revocation lists, if there are any: certificates on them are refused, as are those
/// whose authority has no list.
fn load_revocation_lists(builder: &mut SslConnectorBuilder, settings: &TlsSettings) -> Result<()> {
    if let Some(path) = &settings.revocation_file {
        read("sslcrl", path)?;
        let failed = |error| unreadable("sslcrl", path).caused_by(error);
        let lookup = builder.cert_store_mut().add_lookup(X509Lookup::file()).map_err(failed)?;
        lookup.load_crl_file(path, SslFiletype::PEM).map_err(failed)?;
    }
    if let Some(path) = &settings.revocation_folder {
        let failed = |error| unreadable("sslcrldir", path).caused_by(error);
        if !path.is_dir() {
            return Err(unreadable("sslcrldir", path));
        }
        let folder = path.to_str().ok_or_else(|| unreadable("sslcrldir", path))?;
        let lookup = builder.cert_store_mut().add_lookup(X509Lookup::hash_dir()).map_err(failed)?;
        lookup.add_dir(folder, SslFiletype::PEM).map_err(failed)?;
    }
    if settings.revocation_file.is_some() || settings.revocation_folder.is_some() {
        let checks = X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL;
        builder
            .verify_param_mut()
            .set_flags(checks)
            .map_err(|error| invalid("sslcrl", "can't be used").caused_by(error))?;
    }
    Ok(())
}

impl From<TlsVersion> for SslVersion {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls1 => SslVersion::TLS1,
            TlsVersion::Tls1_1 => SslVersion::TLS1_1,
            TlsVersion::Tls1_2 => SslVersion::TLS1_2,
            TlsVersion::Tls1_3 => SslVersion::TLS1_3,
        }
    }
}

fn set_client_certificate(
    builder: &mut SslConnectorBuilder,
    cert: &Path,
    key: &Path,
    settings: &TlsSettings,
) -> Result<()> {
    read("sslcert", cert)?;
    builder
        .set_certificate_chain_file(cert)
        .map_err(|error| unreadable("sslcert", cert).caused_by(error))?;
    // Without a passphrase, OpenSSL would ask for one on the terminal.
    let phrase = settings.key_password.as_ref().map_or("", |phrase| phrase.expose_secret());
    let failed = |error| unreadable("sslkey", key).caused_by(error);
    let key = PKey::private_key_from_pem_passphrase(&read("sslkey", key)?, phrase.as_bytes())
        .map_err(failed)?;
    builder.set_private_key(&key).map_err(failed)
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

fn unusable(host: &Host, error: openssl::error::ErrorStack) -> Error {
    Error::new(ErrorKind::Config, format!("cannot prepare TLS for PostgreSQL at {host}"))
        .caused_by(error)
}

/// Returns the error for a server certificate that the settings do not accept.
fn untrusted(host: &Host, settings: &TlsSettings, result: X509VerifyResult) -> Error {
    let authority = match &settings.root_cert {
        RootCert::File(path) => {
            format!("does {} hold the authority that signed it?", path.display())
        }
        _ => "name the file of the authority that signed it with sslrootcert".to_owned(),
    };
    let (reason, remedy) = reason_and_remedy(result, authority);
    let message = format!("the TLS certificate of PostgreSQL at {host} can't be trusted: {reason}");
    Error::new(ErrorKind::Tls, message).with_remedy(remedy)
}

/// Replaces the error if it says that the server refused our own certificate. With TLS 1.3, this
/// shows at the first read after the handshake.
pub(super) fn explain_refused_certificate(
    host: &Host,
    settings: &TlsSettings,
    error: Error,
) -> Error {
    if !is_certificate_refused(&error.to_string()) {
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

/// Returns the channel binding data of RFC 5929, section 4: the certificate's hash by the algorithm
/// of its signature, or by SHA-256 if that is MD5 or SHA-1.
fn tls_server_end_point(ssl: &SslRef) -> Option<Vec<u8>> {
    let certificate = ssl.peer_certificate()?;
    let algorithm = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithm.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        digest => MessageDigest::from_nid(digest)?,
    };
    certificate.digest(digest).ok().map(|digest| digest.to_vec())
}
