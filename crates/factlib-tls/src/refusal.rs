//! Explains failed handshakes: the reason why a certificate is not trusted, with a remedy; that the
//! peer refuses ours; that the peer speaks another protocol or version.

use std::{error::Error as StdError, io, sync::Arc};

use der::DateTime;
use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, Error, OtherError,
    pki_types::UnixTime,
};

/// Explanation for a certificate that is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Untrusted {
    /// The reason, a clause.
    pub reason: String,
    /// The kind of the reason.
    pub problem: Problem,
}

/// Kind of the reason why a certificate is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// No trusted authority has signed it.
    Authority,
    /// It is issued for other names.
    Name,
    /// It has no name that counts (`subjectAltName`).
    NoName,
    /// Its validity period is over.
    Expired,
    /// Its validity period has not begun.
    NotYetValid,
    /// Its authority has revoked it, or has no valid list that says otherwise.
    Revoked,
    /// Its form, key or signature is not supported.
    Unsupported,
}

impl Problem {
    /// Returns a remedy; none if the authority is the problem, because the caller knows which setting
    /// names it.
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Problem::Authority => return None,
            Problem::Name => {
                "connect by a name that the certificate holds, or have one issued for this name"
            }
            Problem::NoName => {
                "have one issued with subjectAltName, or verify the authority and not the name"
            }
            Problem::Expired => "have it renewed on the server",
            Problem::NotYetValid => "is the clock of this machine right?",
            Problem::Revoked => "have the server's certificate or the revocation list renewed",
            Problem::Unsupported => {
                "have one issued with an RSA key of at least 2048 bits or an ECDSA key on P-256, \
                 signed with SHA-256"
            }
        })
    }
}

/// Explains why a certificate was not trusted, if this is the cause of the error.
pub fn untrusted(error: &(dyn StdError + 'static)) -> Option<Untrusted> {
    use Problem::{Authority, Expired, Name, NoName, NotYetValid, Revoked, Unsupported};
    let (reason, problem): (String, Problem) = match cause(error)? {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                ("no trusted authority has signed it".into(), Authority)
            }
            CertificateError::ExpiredContext { not_after, .. } => {
                (format!("it expired at {}", time(*not_after)), Expired)
            }
            CertificateError::Expired => ("it has expired".into(), Expired),
            CertificateError::NotValidYetContext { not_before, .. } => {
                (format!("it is valid only from {}", time(*not_before)), NotYetValid)
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
                let reason =
                    format!("it is for {}, not for {}", presented.join(", "), expected.to_str());
                (reason, Name)
            }
            CertificateError::Revoked => ("it is revoked".into(), Revoked),
            CertificateError::UnknownRevocationStatus => {
                ("there is no revocation list of its authority".into(), Revoked)
            }
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                let reason = format!(
                    "the revocation list of its authority expired at {}",
                    time(*next_update)
                );
                (reason, Revoked)
            }
            CertificateError::BadSignature => {
                ("the trusted authority of the name in it has not signed it".into(), Authority)
            }
            CertificateError::BadEncoding => ("it can't be read".into(), Unsupported),
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                ("its key or signature is of a kind that is not supported".into(), Unsupported)
            }
            CertificateError::InvalidPurpose => {
                ("it is not issued for servers (extendedKeyUsage)".into(), Unsupported)
            }
            CertificateError::Other(OtherError(error)) => {
                let problem = match () {
                    () if error.is::<NoSubjectAltName>() => NoName,
                    () if error.is::<OwnAuthority>() => Authority,
                    () => Unsupported,
                };
                (error.to_string(), problem)
            }
            error => (error.to_string(), Unsupported),
        },
        Error::InvalidCertRevocationList(error) => {
            (format!("the revocation list of its authority can't be used: {error:?}"), Revoked)
        }
        _ => return None,
    };
    Some(Untrusted { reason, problem })
}

/// True if the cause of the error is that the peer refused our own certificate, or the lack of one.
/// With TLS 1.3, this shows at the first read after the handshake.
pub fn is_own_certificate_refused(error: &(dyn StdError + 'static)) -> bool {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    matches!(
        cause(error),
        Some(Error::AlertReceived(
            BadCertificate
                | CertificateExpired
                | CertificateRequired
                | CertificateRevoked
                | CertificateUnknown
                | DecryptError
                | UnknownCA
                | UnsupportedCertificate
        ))
    )
}

/// Kind of a handshake that fails before certificates matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// The peer's answer is not TLS, or it hung up: the port probably speaks another protocol.
    NotTls,
    /// There is no version of TLS or no cipher suite in common.
    Incompatible,
}

/// Classifies the cause of a failed handshake; none if it is a certificate or the network.
pub fn handshake_failure(error: &(dyn StdError + 'static)) -> Option<HandshakeFailure> {
    match cause(error) {
        Some(Error::InvalidMessage(_)) => Some(HandshakeFailure::NotTls),
        Some(
            Error::PeerIncompatible(_)
            | Error::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity,
            ),
        ) => Some(HandshakeFailure::Incompatible),
        Some(_) => None,
        None => {
            let error = error.downcast_ref::<io::Error>()?;
            let hung_up = error.kind() == io::ErrorKind::UnexpectedEof;
            hung_up.then_some(HandshakeFailure::NotTls)
        }
    }
}

/// Finds the error of rustls in a chain of causes.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error leaves what it wraps out of its sources.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Converts an error of webpki as rustls does.
pub(crate) fn certificate_error(error: webpki::Error) -> Error {
    use webpki::Error::{
        BadDer, BadDerTime, CertExpired, CertNotValidForName, CertNotValidYet, CertRevoked,
        CrlExpired, InvalidCertValidity, InvalidCrlSignatureForPublicKey,
        InvalidSignatureForPublicKey, IssuerNotCrlSigner, TrailingData, UnknownIssuer,
        UnknownRevocationStatus, UnsupportedSignatureAlgorithmContext,
        UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    let error = match error {
        BadDer | BadDerTime | TrailingData(_) => CertificateError::BadEncoding,
        CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        InvalidCertValidity => CertificateError::Expired,
        UnknownIssuer => CertificateError::UnknownIssuer,
        CertNotValidForName(names) => CertificateError::NotValidForNameContext {
            expected: names.expected,
            presented: names.presented,
        },
        CertRevoked => CertificateError::Revoked,
        UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        IssuerNotCrlSigner => return CertRevocationListError::IssuerInvalidForCrl.into(),
        InvalidCrlSignatureForPublicKey => return CertRevocationListError::BadSignature.into(),
        InvalidSignatureForPublicKey => CertificateError::BadSignature,
        UnsupportedSignatureAlgorithmContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: context.signature_algorithm_id,
                supported_algorithms: context.supported_algorithms,
            }
        }
        UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: context.signature_algorithm_id,
                public_key_algorithm_id: context.public_key_algorithm_id,
            }
        }
        #[allow(deprecated)]
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    };
    error.into()
}

/// A certificate whose name is in the common name alone.
#[derive(Debug, thiserror::Error)]
#[error("it has no subjectAltName, and a name in the common name (CN) does not count")]
pub(crate) struct NoSubjectAltName;

/// A handshake that is not signed with the certificate's key.
#[derive(Debug, thiserror::Error)]
#[error("the handshake is not signed with its key, or the key is too short")]
pub(crate) struct OtherKey;

/// A certificate of an authority that a server uses as its own.
#[derive(Debug, thiserror::Error)]
#[error("it is a certificate of an authority (CA:TRUE), and not itself among the trusted ones")]
pub(crate) struct OwnAuthority;

/// Strips the type that webpki puts around a name: `DnsName("localhost")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn time(time: UnixTime) -> String {
    let time = DateTime::from_unix_duration(std::time::Duration::from_secs(time.as_secs()));
    time.map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}
