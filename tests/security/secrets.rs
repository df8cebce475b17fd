//! No secret comes out of the binary, whatever it does: every one of them is distinctive, the log
//! is at its most talkative, and all that is printed or answered is searched.

use std::net::TcpListener;

use factlib::testing::{Authority, PostgresServer, grant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Files,
    kafka_tls::{LEAST, PASSWORD, Secured},
    launch,
    support::{Bed, Workload, bed::LIMIT, relay::Launch},
};

const OF_POSTGRES: &str = "postgres-own-secret";
const IN_URL: &str = "url-own-secret";
const OF_KEY: &str = "sslkey-own-secret";
const MISTYPED: &str = "mistyped-own-secret";
const SECRETS: [&str; 5] = [OF_POSTGRES, IN_URL, OF_KEY, MISTYPED, PASSWORD];

fn search(text: &str, of: &str) {
    for secret in SECRETS {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{of} shows {secret}: {line:?}");
    }
}

pub async fn get(port: u16, path: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Every way to give a secret at once.
fn with_secrets(bed: &Bed<'_>, secured: &Secured, files: &Files, port: u16) -> Launch {
    let path = |name: &str| files.0.path().join(name).display().to_string();
    let url = format!(
        "postgresql://relay:{IN_URL}@localhost:{}/{}?sslcert={}&sslkey={}&sslpassword={OF_KEY}",
        bed.postgres.port(),
        bed.database,
        path("ours.crt"),
        path("ours.key"),
    );
    launch(bed)
        .set("postgres.url", url)
        .set("postgres.password_file", path("postgres"))
        .set("kafka.brokers", secured.kafka.listener("SASL"))
        .set("kafka.tls", "true")
        .set("kafka.tls_ca", secured.file("ca.crt"))
        .set("kafka.username", "relay")
        .set("kafka.password_file", path("kafka"))
        .set("kafka.properties.ssl.certificate.location", secured.file("client.crt"))
        .set("kafka.properties.ssl.key.location", secured.file("client.key"))
        .set("kafka.properties.ssl.key.password", PASSWORD)
        .set("http.metrics_port", port.to_string())
        .set("http.health_port", port.to_string())
        .set("log.level", "trace")
}

/// Runs a command to its end, whatever that is, and searches what it prints.
async fn searched(launch: &Launch, words: &[&str]) -> String {
    let program = launch.program(words);
    program.ended(LIMIT).await.unwrap_or_else(|| panic!("{words:?}: {}", program.output()));
    search(&program.output(), &words.join(" "));
    program.output()
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    let secured = Secured::shared().await;
    let postgres = PostgresServer::builder().password("another").start().await;
    let postgres = postgres.expect("a PostgreSQL");
    let role = format!("CREATE ROLE relay SUPERUSER LOGIN PASSWORD '{OF_POSTGRES}'");
    postgres.execute("postgres", &role).await.expect("a role");
    let bed = Bed::on(&postgres, &secured.kafka, "secrets").await;
    let files = Files::new();
    let ours = Authority::new("ours").and_then(|authority| authority.client("relay"));
    let ours = ours.expect("a certificate");
    files.write("ours.crt", &ours.certificate);
    files.write("ours.key", ours.encrypted_key(OF_KEY).expect("a key"));
    files.write("postgres", OF_POSTGRES);
    files.write("kafka", format!("{PASSWORD}\n"));
    let port = free_port();
    let launch = with_secrets(&bed, secured, &files, port);
    let prefix = format!("{}.", bed.name);
    grant(&secured.kafka.admin_bootstrap(), "relay", &prefix, &LEAST).await.expect("rights");

    // What it does when all is well.
    let shown = searched(&launch, &["config"]).await;
    assert!(shown.contains("[redacted]") && shown.contains("kafka.password"), "{shown}");
    for words in [&["config", "--json"][..], &["doctor"], &["doctor", "--json"], &["setup"]] {
        searched(&launch, words).await;
    }
    let relay = launch.start().await;
    let history = Workload::new(&bed.name, 50).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    for path in ["/metrics", "/status.json", "/healthz", "/readyz"] {
        let answer = get(port, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        search(&answer, path);
    }
    searched(&launch, &["status"]).await;
    let running = relay.output();
    assert!(running.contains("\"DEBG\""), "it is talkative");
    relay.terminate();
    assert_eq!(relay.ended().await.0, Some(0));
    search(&relay.output(), "factlib run");
    assert!(!relay.output().contains("readable by every user"), "{running}");

    // And when it is not.
    let mistyped = files.write("mistyped", MISTYPED);
    let broken = [
        ("a login that is refused", "postgres.password_file", &*mistyped, 3),
        ("a login that Kafka refuses", "kafka.password_file", &mistyped, 4),
        ("a key that stays closed", "kafka.properties.ssl.key.password", MISTYPED, 4),
        ("a property that is mistyped", "kafka.properties.sasl.pasword", MISTYPED, 2),
        ("a string that is malformed", "postgres.url", &format!("host=h password='{MISTYPED}"), 2),
    ];
    for (what, setting, value, code) in broken {
        // A file is read again at each try, for as long as a start may take.
        let relay =
            launch.clone().set("pipeline.startup_timeout", "2s").set(setting, value).spawn();
        let (ended, line) = relay.ended().await;
        assert_eq!(ended, Some(code), "{what}: {line}");
        search(&relay.output(), what);
    }
    files.mode("kafka", 0o644);
    let warned = searched(&launch.set("log.level", "warn"), &["doctor"]).await;
    assert!(
        warned.contains("readable by every user of this machine") && warned.contains("/kafka"),
        "{warned}"
    );
}
