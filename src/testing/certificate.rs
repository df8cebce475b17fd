//! A certificate for tests of TLS.

use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    x509::{X509, X509NameBuilder, extension::SubjectAlternativeName},
};

use crate::{Error, ErrorKind, Result};

/// A certificate that signs itself, and its key, both PEM.
///
/// It is its own authority: who trusts it needs nothing else.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    pub certificate: String,
    pub key: String,
}

impl SelfSigned {
    /// For `localhost`, 127.0.0.1 and, as its common name, `name`; valid for a day.
    pub fn new(name: &str) -> Result<Self> {
        make(name).map_err(|cause| {
            Error::new(ErrorKind::Config, "cannot make a certificate").caused_by(cause)
        })
    }
}

fn make(common_name: &str) -> Result<SelfSigned, ErrorStack> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&curve)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", common_name)?;
    let name = name.build();
    let mut x509 = X509::builder()?;
    // Counted from 0: X.509 version 3, which has extensions.
    x509.set_version(2)?;
    x509.set_subject_name(&name)?;
    x509.set_issuer_name(&name)?;
    x509.set_pubkey(&key)?;
    let (now, tomorrow) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(1)?);
    x509.set_not_before(&now)?;
    x509.set_not_after(&tomorrow)?;
    let hosts = SubjectAlternativeName::new()
        .dns("localhost")
        .ip("127.0.0.1")
        .build(&x509.x509v3_context(None, None))?;
    x509.append_extension(hosts)?;
    x509.sign(&key, MessageDigest::sha256())?;
    let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
    Ok(SelfSigned {
        certificate: text(x509.build().to_pem()?),
        key: text(key.private_key_to_pem_pkcs8()?),
    })
}
