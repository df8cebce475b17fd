//! TLS and SASL to Kafka: each way in, and one line where there is none.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use factlib::testing::{Authority, KafkaServer, TopicRight, grant, shared_postgres};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::OnceCell,
};

use crate::{
    Files, launch, refused,
    support::{
        Bed, Workload,
        bed::LIMIT,
        relay::{Launch, Relay},
    },
};

/// A broker with a listener for each way in, and the files to reach it.
pub struct Secured {
    pub kafka: KafkaServer,
    pub files: Files,
    authority: Authority,
}

const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

/// In no output.
pub const PASSWORD: &str = "open-sesame";

impl Secured {
    pub async fn shared() -> &'static Secured {
        static SECURED: OnceCell<Secured> = OnceCell::const_new();
        SECURED.get_or_init(Secured::start).await
    }

    async fn start() -> Self {
        let files = Files::new();
        let authority = Authority::new("factlib tests").expect("an authority");
        let other = Authority::new("somebody else").expect("an authority");
        let ca = authority.certificate().to_owned();
        files.write("ca.crt", &ca);
        files.write("other.crt", other.certificate());
        for (name, of) in [("client", &authority), ("theirs", &other)] {
            let signed = of.client("relay").expect("a certificate");
            files.write(&format!("{name}.crt"), &signed.certificate);
            files.write(&format!("{name}.key"), signed.encrypted_key(PASSWORD).expect("a key"));
        }
        let mut builder = KafkaServer::builder().authorizer().scram_user("relay", PASSWORD);
        let good = authority.server(&LOCAL).expect("a certificate");
        let expired = authority.expired(&LOCAL).expect("a certificate");
        let elsewhere = authority.server(&["kafka.example"]).expect("a certificate");
        let plain = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_relay=\"{PASSWORD}\";"
        );
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                      unsecuredLoginStringClaim_sub=\"broker\";";
        for (name, protocol, signed) in [
            ("SASL", "SASL_SSL", &good),
            ("MUTUAL", "SSL", &good),
            ("EXPIRED", "SASL_SSL", &expired),
            ("ELSEWHERE", "SASL_SSL", &elsewhere),
            ("CLEAR", "SASL_PLAINTEXT", &good),
        ] {
            let client_auth = if name == "MUTUAL" { "required" } else { "none" };
            let properties = [
                ("ssl.keystore.type", "PEM"),
                ("ssl.keystore.certificate.chain", signed.certificate.as_str()),
                ("ssl.keystore.key", signed.key.as_str()),
                ("ssl.truststore.type", "PEM"),
                ("ssl.truststore.certificates", ca.as_str()),
                ("ssl.client.auth", client_auth),
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"),
                ("plain.sasl.jaas.config", plain.as_str()),
                ("scram-sha-256.sasl.jaas.config", scram),
                ("scram-sha-512.sasl.jaas.config", scram),
                ("oauthbearer.sasl.jaas.config", bearer),
            ];
            builder = builder.listener(name, protocol, properties);
        }
        Secured { kafka: builder.start().await.expect("a Kafka"), files, authority }
    }

    pub fn file(&self, name: &str) -> String {
        self.files.0.path().join(name).display().to_string()
    }

    async fn bed(&self) -> Bed<'_> {
        Bed::on(shared_postgres().await.expect("PostgreSQL starts"), &self.kafka, "tls").await
    }

    /// TLS to a listener, by the right authority.
    fn tls(&self, bed: &Bed<'_>, listener: &str) -> Launch {
        launch(bed)
            .set("kafka.brokers", self.kafka.listener(listener))
            .set("kafka.tls", "true")
            .set("kafka.tls_ca", self.file("ca.crt"))
    }

    /// The same, as the user `relay`.
    pub fn sasl(&self, bed: &Bed<'_>, listener: &str, mechanism: &str) -> Launch {
        self.tls(bed, listener)
            .set("kafka.username", "relay")
            .set("kafka.password", PASSWORD)
            .set("kafka.sasl_mechanism", mechanism)
    }

    /// The same by certificate.
    fn certificate(&self, bed: &Bed<'_>, name: &str) -> Launch {
        self.tls(bed, "MUTUAL")
            .set("kafka.tls_certificate", self.file(&format!("{name}.crt")))
            .set("kafka.tls_key", self.file(&format!("{name}.key")))
            .set("kafka.tls_key_password", PASSWORD)
    }
}

/// Relays as this user, who has only these rights, and holds what arrives against what was sent.
async fn relays(bed: &Bed<'_>, launch: &Launch, user: &str, rights: &[TopicRight]) {
    grant(&bed.kafka.admin_bootstrap(), user, &format!("{}.", bed.name), rights)
        .await
        .expect("rights");
    let relay = launch.start().await;
    let history = Workload::new(&bed.name, 200).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    let report = relay.finish(bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// What docs/security.md says that the relay needs.
pub const LEAST: [TopicRight; 3] =
    [TopicRight::Write, TopicRight::Create, TopicRight::DescribeConfigs];

#[tokio::test]
async fn each_mechanism_lets_the_right_password_in_with_the_least_rights() {
    let secured = Secured::shared().await;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let bed = secured.bed().await;
        relays(&bed, &secured.sasl(&bed, "SASL", mechanism), "relay", &LEAST).await;
    }
}

#[tokio::test]
async fn a_certificate_is_a_login_too() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    relays(&bed, &secured.certificate(&bed, "client"), "CN=relay", &LEAST).await;
}

#[tokio::test]
async fn a_broker_that_is_not_who_it_says_is_refused_in_one_line() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let place =
        |listener| format!("Kafka at {} can't be trusted", secured.kafka.listener(listener));
    let wrong = secured.sasl(&bed, "SASL", "PLAIN").set("kafka.tls_ca", secured.file("other.crt"));
    let parts = [&place("SASL"), "no trusted authority has signed it", "other.crt", "kafka.tls_ca"];
    refused(&wrong, 4, &parts).await;
    let expired = secured.sasl(&bed, "EXPIRED", "PLAIN");
    let parts = [&place("EXPIRED"), "it expired at", "have it renewed"];
    refused(&expired, 4, &parts).await;
    let elsewhere = secured.sasl(&bed, "ELSEWHERE", "PLAIN");
    let parts = [&place("ELSEWHERE"), "it is for kafka.example, not for", "connect by a name"];
    refused(&elsewhere, 4, &parts).await;
}

#[tokio::test]
async fn a_login_that_the_broker_does_not_know_is_refused_in_one_line() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let wrong = secured.sasl(&bed, "SASL", mechanism).set("kafka.password", "mistyped");
        let at = secured.kafka.listener("SASL");
        let complaint = refused(&wrong, 4, &[&at, "uthentication", "kafka.password"]).await;
        assert!(!complaint.contains("mistyped"), "{complaint}");
    }
    let at = secured.kafka.listener("MUTUAL");
    refused(&secured.certificate(&bed, "theirs"), 4, &[&at, "kafka.tls_certificate"]).await;
    refused(&secured.tls(&bed, "MUTUAL"), 4, &[&at, "kafka.tls_certificate"]).await;
}

#[tokio::test]
async fn what_the_user_may_not_do_is_named_with_the_right_that_is_missing() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let at = secured.kafka.admin_bootstrap();
    let prefix = format!("{}.", bed.name);
    grant(&at, "relay", &prefix, &[TopicRight::Describe]).await.expect("rights");
    let ours = secured.sasl(&bed, "SASL", "PLAIN");
    let theirs = ours.clone().set("kafka.topic_prefix", "theirs");
    let relay = ours.start().await;
    Workload::new(&bed.name, 1).emit(&mut bed.client().await).await;
    // The topic waits for the right, and the relay with it.
    says_all(&relay, &["cannot create topic", &prefix, "ACLs", "Create"]).await;
    relay.kill().await;
    let relay = theirs.start().await;
    says_all(&relay, &["cannot look up topic theirs.", "ACLs", "Describe and Write"]).await;
    relay.kill().await;
}

/// Waits for a line with the first of `parts`, which has to have all of them.
async fn says_all(relay: &Relay, parts: &[&str]) {
    relay.says(parts[0]).await;
    let output = relay.output();
    let line = output.lines().find(|line| line.contains(parts[0])).expect("it was said");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[tokio::test]
async fn a_broker_that_wants_tls_or_a_login_from_a_client_without_is_named_with_the_remedy() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let without = |listener: &str| {
        let at = secured.kafka.listener(listener);
        let plain = launch(&bed).set("kafka.brokers", &at).set("pipeline.startup_timeout", "4s");
        (at, plain)
    };
    for (listener, wants) in [
        // Before its first answer, and after it.
        ("MUTUAL", "kafka.tls = true"),
        ("SASL", "kafka.tls = true"),
        ("CLEAR", "kafka.username and kafka.password"),
    ] {
        let (at, plain) = without(listener);
        refused(&plain, 4, &[&at, wants]).await;
        let program = plain.program(&["doctor"]);
        program.ended(LIMIT).await.expect("it ends");
        let text = program.output();
        let line = text.lines().skip_while(|line| !line.contains(&at)).take(2);
        let line = line.collect::<String>();
        assert!(line.contains(wants), "{listener}: {text}");
        assert!(!text.contains("start the brokers"), "{listener}: {text}");
    }
    // The other way round.
    let plaintext = secured.kafka.bootstrap();
    let encrypted = secured.tls(&bed, "SASL").set("kafka.brokers", &plaintext);
    let encrypted = encrypted.set("pipeline.startup_timeout", "4s");
    refused(&encrypted, 4, &[&plaintext, "kafka.tls = false"]).await;
}

#[tokio::test]
async fn passwords_certificates_and_keys_are_renewed_on_disk_while_the_relay_runs() {
    // Of its own, since its broker stops.
    let secured = Secured::start().await;
    let (by_password, by_certificate) = (secured.bed().await, secured.bed().await);
    let write = |name: &str, text: &str| secured.files.write(name, text);
    let renew = |password: &str| {
        let signed = secured.authority.client("relay").expect("a certificate");
        write("renewed.crt", &signed.certificate);
        let key = signed.encrypted_key(password).expect("a key");
        write("renewed.key", &key);
    };
    renew("first");
    let password = write("password", PASSWORD);
    let key_password = write("key-password", "first");
    let first = secured
        .sasl(&by_password, "SASL", "SCRAM-SHA-512")
        .set("kafka.password", "")
        .set("kafka.password_file", &password);
    let second = secured
        .tls(&by_certificate, "MUTUAL")
        .set("kafka.tls_certificate", secured.file("renewed.crt"))
        .set("kafka.tls_key", secured.file("renewed.key"))
        .set("kafka.tls_key_password_file", &key_password);
    let admin = secured.kafka.admin_bootstrap();
    let mut relays = Vec::new();
    for (bed, user, launch) in
        [(&by_password, "relay", first), (&by_certificate, "CN=relay", second)]
    {
        grant(&admin, user, &format!("{}.", bed.name), &LEAST).await.expect("rights");
        let relay = launch.start().await;
        let history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
        bed.delivered(&history).await;
        relays.push((bed, relay, history));
    }
    secured.kafka.stop(1).await.expect("stopped");
    write("password", "not yet renewed");
    renew("second");
    secured.kafka.start_again(1).await.expect("started");
    for ((_, relay, _), complaint) in relays.iter().zip(["refuses the login", "the client's key"]) {
        relay.says(complaint).await;
    }
    write("password", &format!("{PASSWORD}\n"));
    write("key-password", "second\n");
    for (bed, relay, _) in relays {
        let history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
        bed.delivered(&history).await;
        relay.stop().await;
    }
}

/// An OpenID provider that knows one client, and whose tokens have no signature.
async fn provider(login: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"grant_type=client_credentials") {
                request.push(socket.read_u8().await.expect("the request"));
            }
            let request = String::from_utf8(request).expect("text");
            let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
            let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            let claims = format!(r#"{{"sub":"relay","iat":{now},"exp":{}}}"#, now + 600);
            let token = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
            let (status, answer) = match request.contains(&format!("Basic {login}\r\n")) {
                true => (200, format!(r#"{{"access_token":"{token}","expires_in":600}}"#)),
                false => (401, r#"{"error":"invalid_client"}"#.to_owned()),
            };
            let length = answer.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{answer}");
            socket.write_all(answer.as_bytes()).await.expect("answered");
        }
    });
    format!("http://{address}/token")
}

#[tokio::test]
async fn a_token_of_an_openid_provider_lets_in() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let url = provider(BASE64_STANDARD.encode(format!("factlib:{PASSWORD}"))).await;
    let launch = secured
        .tls(&bed, "SASL")
        .set("kafka.sasl_mechanism", "OAUTHBEARER")
        .set("kafka.oauth_token_url", &url)
        .set("kafka.oauth_client_id", "factlib")
        .set("kafka.oauth_client_secret", PASSWORD);
    relays(&bed, &launch, "relay", &LEAST).await;
    let relay = launch.set("kafka.oauth_client_secret", "mistyped").spawn();
    relay.says("answered 401 Unauthorized: invalid_client").await;
    assert!(!relay.output().contains("mistyped"), "{}", relay.output());
    relay.kill().await;
}

#[tokio::test]
async fn logins_that_the_client_lacks_are_named() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let with = |name: &str, value: &str| {
        secured.tls(&bed, "SASL").set(&format!("kafka.properties.{name}"), value)
    };
    refused(&with("sasl.mechanisms", "GSSAPI"), 2, &["GSSAPI"]).await;
    let unsecured = with("enable.sasl.oauthbearer.unsecure.jwt", "true");
    refused(&unsecured, 2, &["proves nothing", "kafka.oauth_token_url"]).await;
}
