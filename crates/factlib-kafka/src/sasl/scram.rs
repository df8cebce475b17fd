//! SCRAM (RFC 5802), without channel binding, which Kafka does not support.

use std::{io, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::{Beginning, CredentialSource, Credentials, Exchange, Login};

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// `SCRAM-SHA-256`.
    Sha256,
    /// `SCRAM-SHA-512`.
    Sha512,
}

/// Logs in with a password, without sending it.
#[derive(Clone)]
pub struct Scram {
    hash: Hash,
    source: Arc<dyn CredentialSource>,
}

impl Scram {
    /// Logs in as this user.
    pub fn new(hash: Hash, user: impl Into<String>, password: impl Into<String>) -> Self {
        Scram::from_source(hash, Credentials { user: user.into(), password: password.into() })
    }

    /// Logs in with credentials that the source provides for each login.
    pub fn from_source(hash: Hash, source: impl CredentialSource) -> Self {
        Scram { hash, source: Arc::new(source) }
    }
}

impl Login for Scram {
    fn mechanism(&self) -> &'static str {
        match self.hash {
            Hash::Sha256 => "SCRAM-SHA-256",
            Hash::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn begin(&self) -> Beginning<'_> {
        Box::pin(async {
            let mut random = [0; 24];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let credentials = self.source.credentials()?;
            let nonce = BASE64_STANDARD.encode(random);
            Ok(Box::new(Exchanging::new(self.hash, credentials, nonce)) as Box<dyn Exchange>)
        })
    }
}

struct Exchanging {
    hash: Hash,
    credentials: Credentials,
    nonce: String,
    state: State,
}

enum State {
    First,
    Challenged { first_bare: String },
    Proven { signature: Vec<u8> },
    Over,
}

impl Exchange for Exchanging {
    fn next(&mut self, said: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::First => {
                let user = self.credentials.user.replace('=', "=3D").replace(',', "=2C");
                let first_bare = format!("n={user},r={}", self.nonce);
                let message = format!("n,,{first_bare}");
                self.state = State::Challenged { first_bare };
                Ok(Some(message.into_bytes()))
            }
            State::Challenged { first_bare } => {
                let (message, signature) = self.proof(&first_bare, said)?;
                self.state = State::Proven { signature };
                Ok(Some(message.into_bytes()))
            }
            State::Proven { signature } => {
                let said = text(said)?;
                let verifier = field(said, "v").and_then(|v| BASE64_STANDARD.decode(v).ok());
                match verifier {
                    Some(verifier) if verifier == signature => Ok(None),
                    _ => Err(wrong("the broker failed to prove that it knows the password")),
                }
            }
            State::Over => Ok(None),
        }
    }
}

impl Exchanging {
    fn new(hash: Hash, credentials: Credentials, nonce: String) -> Self {
        Exchanging { hash, credentials, nonce, state: State::First }
    }

    /// Returns the last message, and the signature that the broker must send back.
    fn proof(&self, first_bare: &str, challenge: &[u8]) -> io::Result<(String, Vec<u8>)> {
        let challenge = text(challenge)?;
        let (nonce, salt, count) =
            (field(challenge, "r"), field(challenge, "s"), field(challenge, "i"));
        let (Some(nonce), Some(salt), Some(count)) = (nonce, salt, count) else {
            return Err(wrong(
                "the broker's challenge lacks a nonce, a salt or an iteration count",
            ));
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(wrong("the broker's challenge is for another login"));
        }
        let salt = BASE64_STANDARD.decode(salt).map_err(io::Error::other)?;
        let count: u32 = count.parse().map_err(io::Error::other)?;
        // RFC 7677 requires at least 4,096 iterations; with fewer, a hostile broker could guess
        // the password.
        if !(4_096..=1_000_000).contains(&count) {
            return Err(wrong(
                "the broker's challenge has an iteration count outside of 4,096 to 1,000,000",
            ));
        }
        let last_bare = format!("c=biws,r={nonce}");
        let signed = format!("{first_bare},{challenge},{last_bare}");
        let password = self.credentials.password.as_bytes();
        let (proof, signature) = match self.hash {
            Hash::Sha256 => keys::<Hmac<Sha256>, Sha256>(password, &salt, count, &signed),
            Hash::Sha512 => keys::<Hmac<Sha512>, Sha512>(password, &salt, count, &signed),
        };
        Ok((format!("{last_bare},p={}", BASE64_STANDARD.encode(proof)), signature))
    }
}

/// Computes the client's proof and the server's signature.
fn keys<M: Mac + KeyInit, D: Digest>(
    password: &[u8],
    salt: &[u8],
    count: u32,
    signed: &str,
) -> (Vec<u8>, Vec<u8>) {
    let mut block = hmac::<M>(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut salted = block.clone();
    for _ in 1..count {
        block = hmac::<M>(password, &block);
        salted.iter_mut().zip(&block).for_each(|(all, one)| *all ^= one);
    }
    let client_key = hmac::<M>(&salted, b"Client Key");
    let signature = hmac::<M>(&D::digest(&client_key), signed.as_bytes());
    let proof = client_key.iter().zip(&signature).map(|(key, signed)| key ^ signed).collect();
    let server_key = hmac::<M>(&salted, b"Server Key");
    (proof, hmac::<M>(&server_key, signed.as_bytes()))
}

fn hmac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn text(said: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(said).map_err(io::Error::other)
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(hash: Hash, (user, password): (&str, &str), nonce: &str) -> Exchanging {
        let credentials = Credentials { user: user.into(), password: password.into() };
        Exchanging::new(hash, credentials, nonce.into())
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_messages_are_those_of_the_rfc() {
        let mut exchange = exchange(Hash::Sha256, ("user", "pencil"), "rOprNGfwEbeRWgbNEkqO");
        let mut says = |said: &str| {
            let message = exchange.next(said.as_bytes()).expect("good");
            message.map(|message| String::from_utf8(message).expect("text"))
        };
        assert_eq!(says("").as_deref(), Some("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(says(challenge).as_deref(), Some(last));
        assert_eq!(says("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), None);
    }

    #[test]
    fn a_broker_that_proves_nothing_or_repeats_another_login_is_refused() {
        let begun = || {
            let mut exchange = exchange(Hash::Sha512, ("u", "p"), "abc");
            exchange.next(b"").expect("the first message");
            exchange
        };
        for challenge in
            ["r=xyz,s=AAAA,i=4096", "r=abc,s=AAAA,i=4096", "r=abcd,s=AAAA,i=1", "r=abcd,i=4096", ""]
        {
            assert!(begun().next(challenge.as_bytes()).is_err(), "{challenge}");
        }
        let mut exchange = begun();
        exchange.next(b"r=abcd,s=AAAA,i=4096").expect("the last message");
        assert!(exchange.next(b"v=AAAA").is_err());
    }
}
