//! Verifies a server's certificate.
//!
//! Beyond rustls's own verifier, it accepts two kinds that people make for their servers: a
//! certificate that is itself among the trusted ones, and one of X.509 version 1 (as in
//! PostgreSQL's manual) that a trusted authority has signed directly. It fails closed: whatever it
//! can't read is not trusted.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, RawPublicKeyEntity, RevocationOptionsBuilder,
};

use crate::{
    certificate::Certificate,
    options::Verification,
    refusal::{NoSubjectAltName, OtherKey, OwnAuthority, certificate_error},
};

#[derive(Debug)]
pub(crate) struct Verifier {
    verification: Verification,
    /// The certificates that are named as trusted.
    trusted: Vec<CertificateDer<'static>>,
    /// The same as authorities.
    anchors: Vec<TrustAnchor<'static>>,
    /// If this is set, a certificate is refused unless its authority's list is here and does not
    /// contain it.
    revocation_lists: Option<Vec<CertRevocationList<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub fn new(
        verification: Verification,
        trusted: Vec<CertificateDer<'static>>,
        revocation_lists: Option<Vec<CertRevocationList<'static>>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let anchor = |trusted| webpki::anchor_from_trusted_cert(trusted).ok();
        let anchors = trusted.iter().filter_map(anchor).map(|anchor| anchor.to_owned()).collect();
        Verifier { verification, trusted, anchors, revocation_lists, algorithms }
    }

    fn verify_authority(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let checks_revocation = self.revocation_lists.is_some();
        if !checks_revocation && self.trusted.contains(end_entity) {
            return Ok(Certificate::parse(end_entity)?.check_validity(now)?);
        }
        let parsed = match EndEntityCert::try_from(end_entity) {
            Ok(parsed) => parsed,
            Err(webpki::Error::UnsupportedCertVersion) if !checks_revocation => {
                return self.verify_version_1(&Certificate::parse(end_entity)?, now);
            }
            Err(error) => return Err(certificate_error(error)),
        };
        let lists: Vec<&CertRevocationList<'_>> = self.revocation_lists.iter().flatten().collect();
        // By default, it checks the whole chain, wants a list of each authority, and lets none expire.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options.with_expiration_policy(webpki::ExpirationPolicy::Enforce).build()
        });
        let verified = parsed.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            revocation,
            None,
        );
        match verified {
            Ok(_) if checks_revocation && lists.is_empty() => {
                Err(CertificateError::UnknownRevocationStatus.into())
            }
            Ok(_) => Ok(()),
            Err(webpki::Error::CaUsedAsEndEntity) => Err(other(OwnAuthority)),
            Err(error) => Err(certificate_error(error)),
        }
    }

    /// Verifies a certificate without extensions: it has to be signed by a trusted authority itself.
    fn verify_version_1(&self, certificate: &Certificate<'_>, now: UnixTime) -> Result<(), Error> {
        certificate.check_validity(now)?;
        let issuers = self.anchors.iter();
        let issuers = issuers.filter(|anchor| anchor.subject.as_ref() == certificate.issuer);
        for issuer in issuers {
            let key = webpki::spki_for_anchor(issuer);
            let key = RawPublicKeyEntity::try_from(&key).map_err(certificate_error)?;
            let algorithms = self.algorithms.all.iter().filter(|algorithm| {
                algorithm.signature_alg_id().as_ref() == certificate.signature_algorithm
            });
            for algorithm in algorithms {
                let (signed, signature) = (certificate.signed, certificate.signature);
                if key.verify_signature(*algorithm, signed, signature).is_ok() {
                    return Ok(());
                }
            }
        }
        Err(CertificateError::UnknownIssuer.into())
    }
}

/// Verifies that a certificate is issued for a name.
fn verify_name(end_entity: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let verified = match EndEntityCert::try_from(end_entity) {
        Ok(parsed) => parsed.verify_is_valid_for_subject_name(name),
        // It can't have a name that counts.
        Err(webpki::Error::UnsupportedCertVersion) => return Err(other(NoSubjectAltName)),
        Err(error) => Err(error),
    };
    match verified {
        Err(webpki::Error::CertNotValidForName(names)) if names.presented.is_empty() => {
            Err(other(NoSubjectAltName))
        }
        verified => verified.map_err(certificate_error),
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verification != Verification::Off {
            self.verify_authority(end_entity, intermediates, now)?;
        }
        if self.verification == Verification::Full {
            verify_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The peer has to own the certificate's key, even if nothing else is verified: channel binding
    // relies on it.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Certificate::parse(certificate)?.public_key;
        let key = RawPublicKeyEntity::try_from(&key).map_err(certificate_error)?;
        let schemes = self.algorithms.mapping.iter();
        let algorithms = schemes.filter(|(scheme, _)| *scheme == signed.scheme);
        // In TLS 1.2, a scheme leaves the curve open.
        for algorithm in algorithms.flat_map(|(_, algorithms)| *algorithms) {
            // An algorithm for another kind of key fails, and another one follows.
            if key.verify_signature(*algorithm, message, signed.signature()).is_ok() {
                return Ok(HandshakeSignatureValid::assertion());
            }
        }
        Err(other(OtherKey))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Certificate::parse(certificate)?.public_key;
        let verified = verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::BadSignature) => other(OtherKey),
            error => error,
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
