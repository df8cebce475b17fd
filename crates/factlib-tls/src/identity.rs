//! Loads the certificate that we show, and its private key, which may be encrypted.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};

use crate::{authorities::PemError, authorities::from_pem, certificate::Certificate};

/// Failure to use a private key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text holds no private key.
    #[error("there is no private key in it, in PEM")]
    NoKey,
    /// The text is damaged.
    #[error("it is not valid PEM: {0}")]
    Damaged(rustls::pki_types::pem::Error),
    /// The key is encrypted, and there is no password.
    #[error("the key is encrypted, and no password is set for it")]
    NoPassword,
    /// The password is not the key's.
    #[error("the password does not fit the encrypted key")]
    WrongPassword,
    /// The key is encrypted in OpenSSL's own format of before 2010.
    #[error(
        "the key is encrypted in an old format: convert it with `openssl pkcs8 -topk8 -in OLD.key \
         -out NEW.key`"
    )]
    OldEncryption,
    /// The cipher is an old one.
    #[error(
        "the key is encrypted with a cipher that is not supported: convert it with `openssl pkcs8 \
         -topk8 -v2 aes-256-cbc -in OLD.key -out NEW.key`"
    )]
    Cipher,
    /// The kind of the key is not supported.
    #[error(
        "the kind of the key is not supported, only RSA with 2048 to 4096 bits, ECDSA on P-256 or \
         P-384, and Ed25519 are: {0}"
    )]
    Kind(rustls::Error),
    /// The certificate is that of another key.
    #[error("the key is not the certificate's")]
    OtherCertificate,
}

/// A private key.
#[derive(Debug)]
pub struct Key(Arc<dyn SigningKey>);

impl Key {
    /// Reads the first private key in PEM text, and decrypts it.
    pub fn from_pem(text: &[u8], password: Option<&str>) -> Result<Self, KeyError> {
        let text = String::from_utf8_lossy(text);
        let key = match encrypted_key(&text)? {
            Some(encrypted) => decrypt(&encrypted, password)?,
            None => match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
                Ok(key) => key,
                Err(rustls::pki_types::pem::Error::NoItemsFound) => return Err(KeyError::NoKey),
                Err(error) => return Err(KeyError::Damaged(error)),
            },
        };
        let key = ring::default_provider().key_provider.load_private_key(key);
        key.map(Key).map_err(KeyError::Kind)
    }
}

/// A certificate chain, our own first, and its key.
#[derive(Clone, Debug)]
pub struct Identity(pub(crate) Arc<CertifiedKey>);

impl Identity {
    /// Pairs certificates in PEM text, which may include intermediate ones, with their key.
    pub fn new(chain: Vec<CertificateDer<'static>>, Key(key): Key) -> Result<Self, KeyError> {
        let own = chain.first().and_then(|own| Certificate::parse(own).ok());
        let is_same = match (own, key.public_key()) {
            (Some(own), Some(key)) => own.public_key == key,
            _ => true,
        };
        match is_same {
            true => Ok(Identity(Arc::new(CertifiedKey::new(chain, key)))),
            false => Err(KeyError::OtherCertificate),
        }
    }
}

/// Reads our certificate, followed by intermediate ones, from PEM text.
pub fn chain_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    from_pem(text)
}

/// Returns the encoding of an encrypted key, if there is one in the text.
fn encrypted_key(text: &str) -> Result<Option<Vec<u8>>, KeyError> {
    const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(KeyError::OldEncryption);
    }
    let Some((_, rest)) = text.split_once(BEGIN) else { return Ok(None) };
    let damaged = || KeyError::Damaged(rustls::pki_types::pem::Error::NoItemsFound);
    let (body, _) = rest.split_once(END).ok_or_else(damaged)?;
    let body: Cow<'_, str> = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(body.as_bytes()).map(Some).map_err(|_| damaged())
}

fn decrypt(key: &[u8], password: Option<&str>) -> Result<PrivateKeyDer<'static>, KeyError> {
    use pkcs8::{Error::EncryptedPrivateKey, pkcs5};
    let key = EncryptedPrivateKeyInfoRef::try_from(key).map_err(|_| KeyError::Cipher)?;
    let password = password.ok_or(KeyError::NoPassword)?;
    let key = key.decrypt(password).map_err(|error| match error {
        EncryptedPrivateKey(pkcs5::Error::DecryptFailed) => KeyError::WrongPassword,
        EncryptedPrivateKey(_) => KeyError::Cipher,
        // Decrypted, and nonsense.
        _ => KeyError::WrongPassword,
    })?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}
