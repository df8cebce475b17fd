//! Handshakes with certificates as people make them, and what is said about those that fail.

use std::{io, sync::Arc};

use factlib_tls::{
    ClientConfig, Options, Verification, Version, authorities, connect,
    identity::{Identity, Key, chain_from_pem},
    refusal::{
        HandshakeFailure, Problem, Untrusted, handshake_failure, is_own_certificate_refused,
        untrusted,
    },
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
        sign::{CertifiedKey, SingleCertAndKey},
        version::{TLS12, TLS13},
    },
    server_name, tls_server_end_point,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("certificates/", $name)).as_slice()
    };
}

const AUTHORITY: &[u8] = file!("ca.crt");
const SERVER: &[u8] = file!("server.crt");
const VERSION_1: &[u8] = file!("version1.crt");

/// Options that trust these certificates.
fn trusting(trusted: &[u8], verification: Verification) -> Options {
    let trusted = authorities::from_pem(trusted).expect("certificates");
    Options { trusted, verification, ..Options::default() }
}

fn with_lists(lists: &[u8]) -> Options {
    let lists = authorities::revocation_lists(lists).expect("a list");
    let mut options = trusting(AUTHORITY, Verification::Full);
    options.revocation_lists = Some(lists);
    options
}

/// A server's configuration with this certificate, whatever it is.
fn server(certificate: &[u8], wants: Option<&[u8]>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(file!("server.key")).expect("a key");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let own = CertifiedKey::new(chain.expect("certificates"), key);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match wants {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority).expect("one")).expect("fit");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
}

/// Shakes hands and exchanges a byte.
async fn exchange(server: ServerConfig, client: ClientConfig, name: &str) -> io::Result<()> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(theirs).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        let _ = stream.read_u8().await;
        io::Result::Ok(())
    });
    let name = server_name(name).expect("a name");
    let mut stream = connect(client, name, ours).await?;
    assert_eq!(stream.read_u8().await?, 7);
    drop(stream);
    serving.await.expect("no panic")
}

async fn shake(certificate: &[u8], options: Options, name: &str) -> Result<(), Untrusted> {
    let client = options.into_config().expect("a configuration");
    let result = exchange(server(certificate, None), client, name).await;
    result.map_err(|error| untrusted(&error).unwrap_or_else(|| panic!("{error}")))
}

/// The reason of a refusal, which has to be of this kind.
async fn refusal(certificate: &[u8], options: Options, name: &str, problem: Problem) -> String {
    let untrusted = shake(certificate, options, name).await.expect_err("not trusted");
    assert_eq!(untrusted.problem, problem, "{untrusted:?}");
    untrusted.reason
}

#[tokio::test]
async fn authority_and_name_are_verified() {
    let full = || trusting(AUTHORITY, Verification::Full);
    for name in ["localhost", "127.0.0.1"] {
        shake(SERVER, full(), name).await.expect("trusted");
    }
    let reason = refusal(SERVER, full(), "db.example", Problem::Name).await;
    assert_eq!(reason, "it is for localhost, 127.0.0.1, not for db.example");
    refusal(SERVER, full(), "127.0.0.2", Problem::Name).await;
    let other = || trusting(file!("self-signed.crt"), Verification::Full);
    let reason = refusal(SERVER, other(), "localhost", Problem::Authority).await;
    assert_eq!(reason, "no trusted authority has signed it");
    shake(SERVER, trusting(AUTHORITY, Verification::AuthorityOnly), "db.example")
        .await
        .expect("trusted");
    shake(SERVER, Options { verification: Verification::Off, ..Options::default() }, "db.example")
        .await
        .expect("not verified");
    refusal(SERVER, Options::default(), "localhost", Problem::Authority).await;
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_trusted_if_it_is_named() {
    let own = file!("self-signed.crt");
    shake(own, trusting(own, Verification::Full), "localhost").await.expect("trusted");
    refusal(own, trusting(own, Verification::Full), "db.example", Problem::Name).await;
    let reason =
        refusal(own, trusting(AUTHORITY, Verification::Full), "localhost", Problem::Authority)
            .await;
    assert!(reason.contains("CA:TRUE"), "{reason}");
    // Its lists can't be looked up.
    let mut options = with_lists(file!("none.crl"));
    options.trusted = authorities::from_pem(own).expect("one");
    refusal(own, options, "localhost", Problem::Authority).await;
}

#[tokio::test]
async fn a_name_that_is_only_in_the_common_name_is_refused_with_what_it_lacks() {
    for (certificate, trusted) in [
        (file!("common-name.crt"), AUTHORITY),
        (file!("self-signed-cn.crt"), file!("self-signed-cn.crt")),
        (VERSION_1, AUTHORITY),
    ] {
        let options = trusting(trusted, Verification::Full);
        let reason = refusal(certificate, options, "localhost", Problem::NoName).await;
        assert!(reason.contains("subjectAltName"), "{reason}");
        let options = trusting(trusted, Verification::AuthorityOnly);
        shake(certificate, options, "localhost").await.expect("trusted");
    }
}

#[tokio::test]
async fn a_certificate_of_version_1_has_to_be_signed_by_a_trusted_authority() {
    for versions in [(Version::Tls1_2, Version::Tls1_2), (Version::Tls1_3, Version::Tls1_3)] {
        let mut options = trusting(AUTHORITY, Verification::AuthorityOnly);
        options.versions = versions;
        shake(VERSION_1, options, "localhost").await.expect("trusted");
    }
    let other = || trusting(file!("self-signed.crt"), Verification::AuthorityOnly);
    refusal(VERSION_1, other(), "localhost", Problem::Authority).await;
    // One bit of the signature.
    let mut forged = CertificateDer::from_pem_slice(VERSION_1).expect("one").to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let key = ring::default_provider()
        .key_provider
        .load_private_key(PrivateKeyDer::from_pem_slice(file!("server.key")).expect("a key"))
        .expect("a key");
    let own = CertifiedKey::new(vec![forged.into()], key);
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    let client = trusting(AUTHORITY, Verification::AuthorityOnly).into_config().expect("one");
    let error = exchange(server, client, "localhost").await.expect_err("forged");
    assert_eq!(untrusted(&error).expect("a reason").problem, Problem::Authority);
}

#[tokio::test]
async fn revoked_certificates_and_those_without_a_list_are_refused() {
    shake(SERVER, with_lists(file!("none.crl")), "localhost").await.expect("not revoked");
    let reason =
        refusal(SERVER, with_lists(file!("revoked.crl")), "localhost", Problem::Revoked).await;
    assert_eq!(reason, "it is revoked");
    let mut without = trusting(AUTHORITY, Verification::Full);
    without.revocation_lists = Some(Vec::new());
    let reason = refusal(SERVER, without, "localhost", Problem::Revoked).await;
    assert!(reason.contains("no revocation list"), "{reason}");
    let old = authorities::revocation_lists(file!("version1.crl")).expect_err("too old");
    assert!(old.to_string().contains("crlnumber"), "{old}");
}

#[tokio::test]
async fn a_peer_without_a_common_version_and_one_without_tls_are_told_apart() {
    for (theirs, ours) in [(&TLS12, Version::Tls1_3), (&TLS13, Version::Tls1_2)] {
        let key = PrivateKeyDer::from_pem_slice(file!("server.key")).expect("a key");
        let chain = vec![CertificateDer::from_pem_slice(SERVER).expect("one")];
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[theirs])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        let mut options = trusting(AUTHORITY, Verification::Full);
        options.versions = (ours, ours);
        let client = options.into_config().expect("a configuration");
        let error = exchange(server, client, "localhost").await.expect_err("no version");
        assert_eq!(handshake_failure(&error), Some(HandshakeFailure::Incompatible), "{error}");
    }
    for answer in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), b""] {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let client = trusting(AUTHORITY, Verification::Full).into_config().expect("one");
        tokio::spawn(async move {
            let _ = theirs.write_all(answer).await;
        });
        let name = server_name("localhost").expect("a name");
        let error = connect(client, name, ours).await.expect_err("no TLS");
        assert_eq!(handshake_failure(&error), Some(HandshakeFailure::NotTls), "{error}");
        assert_eq!(untrusted(&error), None);
    }
}

#[tokio::test]
async fn our_own_certificate_is_shown_and_its_refusal_is_recognised() {
    let identity = |certificate: &[u8]| {
        let key = Key::from_pem(file!("aes.key"), Some("unlock")).expect("a key");
        Identity::new(chain_from_pem(certificate).expect("one"), key).expect("a pair")
    };
    let exchanged = async |identity: Option<Identity>| {
        let mut options = trusting(AUTHORITY, Verification::Full);
        options.identity = identity;
        let client = options.into_config().expect("a configuration");
        exchange(server(SERVER, Some(AUTHORITY)), client, "localhost").await
    };
    exchanged(Some(identity(SERVER))).await.expect("let in");
    for identity in [None, Some(identity(file!("self-signed.crt")))] {
        let error = exchanged(identity).await.expect_err("not let in");
        assert!(is_own_certificate_refused(&error), "{error}");
    }
    // rustls itself would not take one of version 1.
    identity(VERSION_1);
}

#[test]
fn keys_are_decrypted_or_say_what_is_wrong_with_them() {
    let unlocked = |key: &[u8]| Key::from_pem(key, Some("unlock"));
    for key in [
        file!("server.key"),
        file!("sec1.key"),
        file!("aes.key"),
        file!("des3.key"),
        file!("scrypt.key"),
    ] {
        let chain = chain_from_pem(SERVER).expect("one");
        let key = unlocked(key).expect("a key");
        Identity::new(chain, key).expect("a pair");
    }
    for (key, password, text) in [
        (file!("aes.key"), None, "no password is set"),
        (file!("aes.key"), Some("wrong"), "the password does not fit"),
        (file!("old.key"), Some("unlock"), "openssl pkcs8 -topk8 -in"),
        (file!("pbes1.key"), Some("unlock"), "openssl pkcs8 -topk8 -v2 aes-256-cbc"),
        (file!("small.key"), None, "2048"),
        (SERVER, None, "no private key"),
    ] {
        let error = Key::from_pem(key, password).expect_err(text).to_string();
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
    let other = Identity::new(
        chain_from_pem(SERVER).expect("one"),
        unlocked(file!("other.key")).expect("a key"),
    );
    assert!(other.expect_err("not a pair").to_string().contains("not the certificate's"));
}

#[test]
fn channel_binding_is_the_hash_of_the_certificate() {
    for certificate in [SERVER, VERSION_1] {
        let certificate = CertificateDer::from_pem_slice(certificate).expect("one");
        let hash = ring_hash(&certificate);
        assert_eq!(tls_server_end_point(&certificate), Some(hash));
    }
    assert_eq!(tls_server_end_point(&CertificateDer::from(vec![0x30, 0])), None);
}

fn ring_hash(bytes: &[u8]) -> Vec<u8> {
    use factlib_tls::rustls::crypto::hash::HashAlgorithm;
    let suites = ring::ALL_CIPHER_SUITES.iter();
    let mut hashes =
        suites.filter_map(|suite| suite.tls13()).map(|suite| suite.common.hash_provider);
    let sha256 = hashes.find(|hash| hash.algorithm() == HashAlgorithm::SHA256);
    sha256.expect("SHA-256").hash(bytes).as_ref().to_vec()
}
