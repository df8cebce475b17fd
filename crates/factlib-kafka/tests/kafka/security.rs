//! TLS and logins against a real broker.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use factlib_kafka::{
    Client, Connector, Settings,
    sasl::{
        Credentials, FetchingToken, Hash, Login, OauthBearer, Plain, Scram, Token, TokenSource,
    },
    tls::{KeyPassword, Pem, Tls},
};
use factlib_testing::{Authority, KafkaServer, create_topic};
use tokio::sync::OnceCell;

use crate::numbered::{Numbers, assert_exactly, eventually, settings};

const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

/// A session of a login, after which the broker hangs up.
const SESSION_MS: &str = "4000";

struct Secured {
    kafka: KafkaServer,
    authority: Authority,
    other: Authority,
}

impl Secured {
    async fn shared() -> &'static Secured {
        static SECURED: OnceCell<Secured> = OnceCell::const_new();
        SECURED.get_or_init(Secured::start).await
    }

    async fn start() -> Self {
        let authority = Authority::new("factlib tests").expect("an authority");
        let other = Authority::new("somebody else").expect("an authority");
        let good = authority.server(&LOCAL).expect("a certificate");
        let expired = authority.expired(&LOCAL).expect("a certificate");
        let elsewhere = authority.server(&["kafka.example"]).expect("a certificate");
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                     user_relay=\"secret\";";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                      unsecuredLoginStringClaim_sub=\"broker\";";
        let mut builder = KafkaServer::builder()
            .scram_user("relay", "secret")
            .property("connections.max.reauth.ms", SESSION_MS);
        for (name, protocol, signed) in [
            ("SASL", "SASL_SSL", &good),
            ("MUTUAL", "SSL", &good),
            ("EXPIRED", "SSL", &expired),
            ("ELSEWHERE", "SSL", &elsewhere),
        ] {
            let client_auth = if name == "MUTUAL" { "required" } else { "none" };
            let properties = [
                ("ssl.keystore.type", "PEM"),
                ("ssl.keystore.certificate.chain", signed.certificate.as_str()),
                ("ssl.keystore.key", signed.key.as_str()),
                ("ssl.truststore.type", "PEM"),
                ("ssl.truststore.certificates", authority.certificate()),
                ("ssl.client.auth", client_auth),
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"),
                ("plain.sasl.jaas.config", plain),
                ("scram-sha-256.sasl.jaas.config", scram),
                ("scram-sha-512.sasl.jaas.config", scram),
                ("oauthbearer.sasl.jaas.config", bearer),
            ];
            builder = builder.listener(name, protocol, properties);
        }
        Secured { kafka: builder.start().await.expect("a Kafka"), authority, other }
    }

    fn settings(&self, listener: &str, tls: Tls) -> Settings {
        let mut settings = settings(&self.kafka.listener(listener));
        settings.connector = Arc::new(tls) as Arc<dyn Connector>;
        settings
    }

    fn tls(&self) -> Tls {
        trusting(&self.authority)
    }

    /// The error of the first question.
    async fn error(&self, listener: &str, tls: Tls) -> String {
        let client = Client::new(self.settings(listener, tls));
        client.cluster(None).await.expect_err("it is not let in").to_string()
    }
}

fn trusting(authority: &Authority) -> Tls {
    let mut tls = Tls::default();
    tls.authorities = Some(Pem::Text(authority.certificate().into()));
    tls
}

struct Unsecured;

impl TokenSource for Unsecured {
    fn token(&self) -> FetchingToken<'_> {
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let claims = format!(r#"{{"sub":"relay","iat":{now},"exp":{}}}"#, now + 600);
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
        Box::pin(async { Ok(Token::new(token)) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_logs_in_and_again_before_its_session_ends() {
    let secured = Secured::shared().await;
    let logins: [(&str, Arc<dyn Login>); 4] = [
        ("plain", Arc::new(Plain::new("relay", "secret"))),
        ("scram-256", Arc::new(Scram::new(Hash::Sha256, "relay", "secret"))),
        ("scram-512", Arc::new(Scram::new(Hash::Sha512, "relay", "secret"))),
        ("bearer", Arc::new(OauthBearer::new(Unsecured))),
    ];
    let admin = secured.kafka.admin_bootstrap();
    let mut tests = tokio::task::JoinSet::new();
    for (topic, login) in logins {
        create_topic(&admin, topic, 3, &[]).await.expect("a topic");
        let mut settings = secured.settings("SASL", secured.tls());
        settings.login = Some(login);
        let admin = admin.clone();
        tests.spawn(async move {
            let mut numbers = Numbers::with(settings, topic).await;
            numbers.send_during(tokio::time::sleep(Duration::from_secs(10))).await;
            numbers.ended().await;
            assert_exactly(&admin, topic, 0..numbers.sent).await;
            let mut trouble = numbers.heard.trouble();
            // A broker that has just started still reads what it needs for producer ids.
            trouble.retain(|text| !text.contains("COORDINATOR_LOAD_IN_PROGRESS"));
            assert_eq!(trouble, [""; 0], "{topic}");
            assert_eq!(numbers.heard.count("disconnected"), 0, "{topic}");
        });
    }
    tests.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_a_new_one_is_asked_for() {
    let secured = Secured::shared().await;
    create_topic(&secured.kafka.admin_bootstrap(), "password", 1, &[]).await.expect("a topic");
    let attempts = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&attempts);
    let source = move || -> io::Result<Credentials> {
        let password = if asked.fetch_add(1, Ordering::Relaxed) < 3 { "old" } else { "secret" };
        Ok(Credentials { user: "relay".into(), password: password.into() })
    };
    let mut settings = secured.settings("SASL", secured.tls());
    settings.login = Some(Arc::new(Scram::from_source(Hash::Sha512, source)));
    let mut numbers = Numbers::with(settings, "password").await;
    numbers.send(10);
    numbers.ended().await;
    assert!(attempts.load(Ordering::Relaxed) > 3);
    numbers.heard.has_trouble("refuses the login with SCRAM-SHA-512: SASL_AUTHENTIC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_verified() {
    let secured = Secured::shared().await;
    let error = secured.error("SASL", trusting(&secured.other)).await;
    assert!(error.contains("is not trusted: no trusted authority has signed it"), "{error}");
    let error = secured.error("SASL", Tls::default()).await;
    assert!(error.contains("is not trusted"), "{error}");
    let error = secured.error("EXPIRED", secured.tls()).await;
    assert!(error.contains("is not trusted: it expired at"), "{error}");
    let error = secured.error("ELSEWHERE", secured.tls()).await;
    assert!(error.contains("is not trusted: it is for kafka.example, not for"), "{error}");
    let mut named = secured.tls();
    named.server_name = Some("kafka.example".into());
    let client = Client::new(secured.settings("ELSEWHERE", named));
    client.cluster(None).await.expect("it is the name of the certificate");
    let in_clear = Client::new(settings(&secured.kafka.listener("MUTUAL")));
    let error = in_clear.cluster(None).await.expect_err("it wants TLS").to_string();
    assert!(error.ends_with("wants TLS"), "{error}");
    let mut no_tls = settings(&secured.kafka.admin_bootstrap());
    no_tls.connector = Arc::new(secured.tls());
    let error = Client::new(no_tls).cluster(None).await.expect_err("it has no TLS").to_string();
    assert!(error.contains("TLS handshake") || error.contains("eset"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_certificate_is_read_again_and_so_is_its_password() {
    let secured = Secured::shared().await;
    create_topic(&secured.kafka.admin_bootstrap(), "mutual", 1, &[]).await.expect("a topic");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let (certificate, key) = (file("client.crt"), file("client.key"));
    let write = |authority: &Authority, password: &str| {
        let signed = authority.client("relay").expect("a certificate");
        std::fs::write(&certificate, &signed.certificate).expect("a file");
        std::fs::write(&key, signed.encrypted_key(password).expect("a key")).expect("a file");
    };
    write(&secured.other, "first");
    let password = Arc::new(Mutex::new("first".to_owned()));
    let asked = Arc::clone(&password);
    let mut tls = secured.tls();
    tls.certificate = Some(Pem::from(Path::new(&certificate)));
    tls.key = Some(Pem::File(key.clone()));
    tls.key_password =
        Some(KeyPassword::from_source(move || Ok(asked.lock().expect("no panic").clone())));
    let heard = Arc::new(crate::numbered::Heard::default());
    let settings = secured.settings("MUTUAL", tls);
    let (producer, driver) = factlib_kafka::Producer::new(settings, Arc::clone(&heard) as _);
    tokio::spawn(driver);
    let opening = tokio::spawn(async move { producer.topic("mutual").await });
    eventually("it is refused", || !heard.trouble().is_empty()).await;
    write(&secured.authority, "second");
    heard.has_trouble("cannot use the client's key").await;
    *password.lock().expect("no panic") = "second".into();
    opening.await.expect("no panic").expect("it is let in");
}
