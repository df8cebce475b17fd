//! Loads trusted certificates and revocation lists.

use std::io;

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer,
    pem::{self, PemObject},
};
use webpki::OwnedCertRevocationList;

/// A list of certificates that an authority has revoked.
pub type RevocationList = webpki::CertRevocationList<'static>;

/// Failure to read certificates or revocation lists from PEM text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text is damaged.
    #[error("it is not valid PEM: {0}")]
    Damaged(pem::Error),
    /// The text holds nothing of what it should.
    #[error("there is no {0} in it, in PEM")]
    Nothing(&'static str),
    /// A revocation list is damaged or of version 1.
    #[error(
        "the revocation list is damaged, or of version 1 and not 2: then let its authority number \
         its lists (`crlnumber` in openssl.cnf)"
    )]
    OldRevocationList,
    /// A revocation list can't be used.
    #[error("the revocation list can't be used: {0:?}")]
    RevocationList(webpki::Error),
}

/// Returns the certificates that the operating system trusts. The variables `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name others.
///
/// # Errors
/// The first failure, if no certificate at all is found.
pub fn system() -> io::Result<Vec<CertificateDer<'static>>> {
    let mut found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    Err(match found.errors.is_empty() {
        true => io::Error::new(
            io::ErrorKind::NotFound,
            "this system has no trusted certificates: install them (package ca-certificates), or \
             name a file with SSL_CERT_FILE",
        ),
        false => io::Error::other(found.errors.remove(0)),
    })
}

/// Returns the certificates in PEM text, at least one.
pub fn from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(PemError::Damaged)?;
    match all.is_empty() {
        true => Err(PemError::Nothing("certificate")),
        false => Ok(all),
    }
}

/// Returns the revocation lists in PEM text, at least one.
pub fn revocation_lists(text: &[u8]) -> Result<Vec<RevocationList>, PemError> {
    let mut all = Vec::new();
    for list in CertificateRevocationListDer::pem_slice_iter(text) {
        let list = list.map_err(PemError::Damaged)?;
        let list = OwnedCertRevocationList::from_der(&list).map_err(|error| match error {
            webpki::Error::BadDer | webpki::Error::UnsupportedCrlVersion => {
                PemError::OldRevocationList
            }
            error => PemError::RevocationList(error),
        })?;
        all.push(list.into());
    }
    match all.is_empty() {
        true => Err(PemError::Nothing("revocation list")),
        false => Ok(all),
    }
}
