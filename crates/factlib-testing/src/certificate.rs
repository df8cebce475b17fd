//! Certificates for tests of TLS.

use std::ops::Range;

use pkcs8::{LineEnding, PrivateKeyInfoRef, pkcs5::pbes2::Parameters};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use time::{Duration, OffsetDateTime};

use crate::{Error, ErrorKind, Result};

/// A certificate that signs itself, and its key, both PEM.
///
/// It is its own authority: a client that trusts it needs no other certificate.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl SelfSigned {
    /// Makes a certificate for `localhost` and 127.0.0.1 with the common name `name`, valid for a day.
    pub fn new(name: &str) -> Result<Self> {
        let make = || {
            let key = KeyPair::generate()?;
            let certificate = contents(name, &LOCAL_HOSTS, 0..1)?.self_signed(&key)?;
            Ok::<_, rcgen::Error>(SelfSigned {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            })
        };
        make().map_err(failed)
    }
}

/// A private certificate authority, which signs certificates of servers and of clients.
///
/// ```
/// use factlib_testing::Authority;
///
/// let authority = Authority::new("factlib tests")?;
/// let server = authority.server(&["localhost", "127.0.0.1"])?;
/// let client = authority.client("relay")?;
/// assert_ne!(server.key, client.key);
/// # Ok::<_, factlib_testing::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Authority {
    name: String,
    certificate: String,
    /// PEM.
    key: String,
}

/// A certificate that an [`Authority`] signed, and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl Authority {
    /// Makes an authority of this name, valid for a day.
    pub fn new(name: &str) -> Result<Self> {
        let make = || {
            let key = KeyPair::generate()?;
            let mut contents = contents(name, &[], -2..1)?;
            contents.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = contents.self_signed(&key)?.pem();
            Ok::<_, rcgen::Error>(Authority {
                name: name.into(),
                certificate,
                key: key.serialize_pem(),
            })
        };
        make().map_err(failed)
    }

    /// Returns its own certificate, PEM, for clients and servers to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for a server that is reached by these names and addresses.
    pub fn server(&self, hosts: &[&str]) -> Result<Signed> {
        self.sign(hosts.first().copied().unwrap_or_default(), hosts, 0..1)
    }

    /// Signs a server certificate that expired yesterday.
    pub fn expired(&self, hosts: &[&str]) -> Result<Signed> {
        self.sign(hosts.first().copied().unwrap_or_default(), hosts, -2..-1)
    }

    /// Signs a certificate that identifies a client as this user.
    pub fn client(&self, user: &str) -> Result<Signed> {
        self.sign(user, &[], 0..1)
    }

    fn sign(&self, name: &str, hosts: &[&str], days: Range<i64>) -> Result<Signed> {
        let make = || {
            let (own, key) = (contents(&self.name, &[], -2..1)?, KeyPair::generate()?);
            let issuer = Issuer::from_params(&own, KeyPair::from_pem(&self.key)?);
            let certificate = contents(name, hosts, days)?.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>(Signed {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            })
        };
        make().map_err(failed)
    }
}

impl Signed {
    /// Returns the key, PEM, encrypted with a pass phrase.
    pub fn encrypted_key(&self, passphrase: &str) -> Result<String> {
        // As many rounds as OpenSSL has by default: this is for tests.
        const ROUNDS: u32 = 2048;
        let key = KeyPair::from_pem(&self.key).map_err(failed)?;
        let (salt, iv) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let (salt, iv) = (salt.as_bytes(), iv.into_bytes());
        let encrypt = || {
            let cipher = Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, salt, iv)?;
            let key = PrivateKeyInfoRef::try_from(key.serialized_der())?;
            let encrypted = key.encrypt_with_params(cipher, passphrase)?;
            Ok::<_, pkcs8::Error>(encrypted.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)?)
        };
        encrypt().map(|pem| pem.to_string()).map_err(failed)
    }
}

const LOCAL_HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// The contents of a certificate for these names and addresses, valid between two days from now.
fn contents(
    name: &str,
    hosts: &[&str],
    days: Range<i64>,
) -> std::result::Result<CertificateParams, rcgen::Error> {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut contents = CertificateParams::new(hosts)?;
    contents.distinguished_name = DistinguishedName::new();
    contents.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    contents.not_before = now + Duration::days(days.start);
    contents.not_after = now + Duration::days(days.end);
    Ok(contents)
}

fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Setup, "cannot make a certificate").caused_by(cause)
}
