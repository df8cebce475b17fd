//! Certificates for tests of TLS.

use openssl::{
    asn1::{Asn1Integer, Asn1Time},
    bn::BigNum,
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    symm::Cipher,
    x509::{
        X509, X509Name, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};

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
            let key = new_key()?;
            let subject = Subject { name, hosts: &LOCAL_HOSTS, days: 0..1, authority: false };
            let x509 = subject.signed_by(&key, &common_name(name)?, &key)?;
            Ok(SelfSigned { certificate: pem(x509.to_pem()?), key: key_pem(&key)? })
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
    key: PKey<Private>,
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
            let key = new_key()?;
            let subject = Subject { name, hosts: &[], days: -2..1, authority: true };
            let x509 = subject.signed_by(&key, &common_name(name)?, &key)?;
            Ok(Authority { name: name.into(), certificate: pem(x509.to_pem()?), key })
        };
        make().map_err(failed)
    }

    /// Returns its own certificate, PEM, for clients and servers to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for a server that is reached by these names and addresses.
    pub fn server(&self, hosts: &[&str]) -> Result<Signed> {
        let name = hosts.first().copied().unwrap_or_default();
        self.sign(&Subject { name, hosts, days: 0..1, authority: false })
    }

    /// Signs a server certificate that expired yesterday.
    pub fn expired(&self, hosts: &[&str]) -> Result<Signed> {
        let name = hosts.first().copied().unwrap_or_default();
        self.sign(&Subject { name, hosts, days: -2..-1, authority: false })
    }

    /// Signs a certificate that identifies a client as this user.
    pub fn client(&self, user: &str) -> Result<Signed> {
        self.sign(&Subject { name: user, hosts: &[], days: 0..1, authority: false })
    }

    fn sign(&self, subject: &Subject<'_>) -> Result<Signed> {
        let make = || {
            let key = new_key()?;
            let x509 = subject.signed_by(&key, &common_name(&self.name)?, &self.key)?;
            Ok(Signed { certificate: pem(x509.to_pem()?), key: key_pem(&key)? })
        };
        make().map_err(failed)
    }
}

impl Signed {
    /// Returns the key, PEM, encrypted with a pass phrase.
    pub fn encrypted_key(&self, passphrase: &str) -> Result<String> {
        let make = || {
            let key = PKey::private_key_from_pem(self.key.as_bytes())?;
            let cipher = Cipher::aes_256_cbc();
            Ok(pem(key.private_key_to_pem_pkcs8_passphrase(cipher, passphrase.as_bytes())?))
        };
        make().map_err(failed)
    }
}

const LOCAL_HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// The contents of a certificate.
struct Subject<'a> {
    name: &'a str,
    hosts: &'a [&'a str],
    /// Days from now.
    days: std::ops::Range<i64>,
    authority: bool,
}

impl Subject<'_> {
    fn signed_by(
        &self,
        key: &PKey<Private>,
        issuer: &X509Name,
        issuer_key: &PKey<Private>,
    ) -> Result<X509, ErrorStack> {
        let mut x509 = X509::builder()?;
        // 2 stands for X.509 version 3, which has extensions.
        x509.set_version(2)?;
        let serial = BigNum::from_u32(uuid::Uuid::now_v7().as_u128() as u32)?;
        x509.set_serial_number(Asn1Integer::from_bn(&serial)?.as_ref())?;
        x509.set_subject_name(common_name(self.name)?.as_ref())?;
        x509.set_issuer_name(issuer)?;
        x509.set_pubkey(key)?;
        x509.set_not_before(in_days(self.days.start)?.as_ref())?;
        x509.set_not_after(in_days(self.days.end)?.as_ref())?;
        if self.authority {
            x509.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        }
        if !self.hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for host in self.hosts {
                match host.parse::<std::net::IpAddr>() {
                    Ok(_) => names.ip(host),
                    Err(_) => names.dns(host),
                };
            }
            let names = names.build(&x509.x509v3_context(None, None))?;
            x509.append_extension(names)?;
        }
        x509.sign(issuer_key, MessageDigest::sha256())?;
        Ok(x509.build())
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&curve)?)
}

fn common_name(text: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", text)?;
    Ok(name.build())
}

fn in_days(days: i64) -> Result<Asn1Time, ErrorStack> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    Asn1Time::from_unix(now.cast_signed() + days * 86_400)
}

fn key_pem(key: &PKey<Private>) -> Result<String, ErrorStack> {
    key.private_key_to_pem_pkcs8().map(pem)
}

fn pem(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn failed(cause: ErrorStack) -> Error {
    Error::new(ErrorKind::Setup, "cannot make a certificate").caused_by(cause)
}
