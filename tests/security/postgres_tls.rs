//! TLS to PostgreSQL: both connections verify the server, and show a certificate where it asks
//! for one.

use factlib::testing::{Authority, PostgresServer, Signed, shared_kafka};
use tokio::sync::OnceCell;

use crate::{
    Files, launch, refused,
    support::{Bed, Workload, relay::Launch},
};

/// A server with TLS that takes a user `relay` by certificate only, and the files to reach it.
struct Secured {
    server: PostgresServer,
    authority: Authority,
    files: Files,
    client: Signed,
}

const LOCAL: [&str; 2] = ["localhost", "127.0.0.1"];

async fn start(certificate: Signed, authority: &Authority) -> PostgresServer {
    let builder = PostgresServer::builder()
        .ssl(certificate.certificate, certificate.key)
        .client_ca(authority.certificate())
        .hba("hostnossl all all all reject")
        .hba("hostssl all relay all cert");
    let server = builder.start().await.expect("a PostgreSQL");
    server.execute("postgres", "CREATE ROLE relay SUPERUSER LOGIN").await.expect("a role");
    server
}

impl Secured {
    async fn shared() -> &'static Secured {
        static SECURED: OnceCell<Secured> = OnceCell::const_new();
        SECURED.get_or_init(Secured::start).await
    }

    async fn start() -> Self {
        let authority = Authority::new("factlib tests").expect("an authority");
        let server = authority.server(&LOCAL).expect("a certificate");
        let server = start(server, &authority).await;
        let files = Files::new();
        let client = authority.client("relay").expect("a certificate");
        files.write("ca.crt", authority.certificate());
        files.write("client.crt", &client.certificate);
        files.write("client.key", &client.key);
        let other = Authority::new("somebody else").expect("an authority");
        files.write("other.crt", other.certificate());
        let theirs = other.client("relay").expect("a certificate");
        files.write("theirs.crt", &theirs.certificate);
        files.write("theirs.key", &theirs.key);
        Secured { server, authority, files, client }
    }

    fn file(&self, name: &str) -> String {
        self.files.0.path().join(name).display().to_string()
    }

    /// `sslmode=verify-full` with the authority, and what more there is.
    fn at(&self, server: &PostgresServer, bed: &Bed<'_>, host: &str, more: &str) -> Launch {
        let (port, database, ca) = (server.port(), &bed.database, self.file("ca.crt"));
        launch(bed).set(
            "postgres.url",
            format!(
                "{host} port={port} dbname={database} user=relay sslmode=verify-full \
                 sslrootcert={ca} {more}"
            ),
        )
    }

    /// `sslcert=` and `sslkey=` with these files.
    fn identity(&self, certificate: &str, key: &str) -> String {
        format!("sslcert={} sslkey={}", self.file(certificate), self.file(key))
    }

    async fn bed(&self) -> Bed<'_> {
        let kafka = shared_kafka().await.expect("Kafka starts");
        Bed::on(&self.server, kafka, "tls").await
    }
}

#[tokio::test]
async fn both_connections_are_verified_and_verify_us() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let key = secured.client.encrypted_key("unlock").expect("a key");
    secured.files.write("locked.key", key);
    let identity = secured.identity("client.crt", "locked.key") + " sslpassword=unlock";
    let relay = secured.at(&secured.server, &bed, "host=localhost", &identity).start().await;
    let history = Workload::new(&bed.name, 200).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    let query = "SELECT backend_type, ssl.ssl AND ssl.client_dn = '/CN=relay'
        FROM pg_stat_activity JOIN pg_stat_ssl ssl USING (pid) WHERE usename = 'relay' ORDER BY 1";
    let sessions = bed.client().await.query(query, &[]).await.expect("sessions");
    let kinds: Vec<&str> = sessions.iter().map(|row| row.get(0)).collect();
    assert!(kinds.contains(&"client backend") && kinds.contains(&"walsender"), "{kinds:?}");
    assert!(sessions.iter().all(|row| row.get(1)), "every session is as secure: {sessions:?}");
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_says_is_refused_in_one_line() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let identity = secured.identity("client.crt", "client.key");
    let port = secured.server.port();
    let at = |host: &str, more: &str| {
        secured.at(&secured.server, &bed, host, &format!("{identity} {more}"))
    };
    let wrong = format!("sslrootcert={}", secured.file("other.crt"));
    let place = format!("PostgreSQL at localhost:{port} can't be trusted");
    let parts = [&place, "other.crt hold the authority that signed it?"];
    refused(&at("host=localhost", &wrong), 3, &parts).await;

    let place = format!("PostgreSQL at db.example:{port} can't be trusted");
    let parts = [
        &place,
        "it is for localhost, 127.0.0.1, not for db.example",
        "connect by a name that the certificate holds",
    ];
    refused(&at("host=db.example hostaddr=127.0.0.1", ""), 3, &parts).await;

    let expired = secured.authority.expired(&LOCAL).expect("a certificate");
    let expired = start(expired, &secured.authority).await;
    let place = format!("PostgreSQL at localhost:{} can't be trusted", expired.port());
    let parts = [&place, "it expired at", "have it renewed on the server"];
    refused(&secured.at(&expired, &bed, "host=localhost", &identity), 3, &parts).await;
}

#[tokio::test]
async fn a_client_that_the_server_does_not_know_is_refused_in_one_line() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let at = |more: &str| secured.at(&secured.server, &bed, "host=localhost", more);
    // In a home without ~/.postgresql.
    let nobody = at("").set("log.level", "info");
    let parts = ["requires a valid client certificate", "28000", "sslcert and sslkey"];
    refused(&nobody, 3, &parts).await;

    // Files are read again at each try, for as long as a start may take.
    let at = |more: &str| at(more).set("pipeline.startup_timeout", "2s");
    let place =
        format!("PostgreSQL at localhost:{} refuses our TLS certificate", secured.server.port());
    let parts = [&place, "UnknownCA", "theirs.crt"];
    let theirs = at(&secured.identity("theirs.crt", "theirs.key"));
    // In TLS 1.3 the server refuses after the handshake: a client that is still writing then may
    // see no more than the end of the connection.
    let mut refusal = theirs.spawn().ended().await;
    for _ in 0..5 {
        if !refusal.1.contains("UnknownCA") {
            refusal = theirs.spawn().ended().await;
        }
    }
    assert_eq!(refusal.0, Some(3), "{}", refusal.1);
    for part in parts {
        assert!(refusal.1.contains(part), "{part:?} is not in: {}", refusal.1);
    }

    let unlocked = secured.identity("client.crt", "client.key");
    let missing = unlocked.replace("client.key", "nowhere.key");
    refused(&at(&missing), 3, &["sslkey", "nowhere.key", "No such file"]).await;
}

#[tokio::test]
async fn what_the_system_trusts_is_believed_where_nothing_is_said() {
    let secured = Secured::shared().await;
    let bed = secured.bed().await;
    let identity = secured.identity("client.crt", "client.key");
    let url = format!(
        "host=localhost port={} dbname={} user=relay sslmode=verify-full {identity}",
        secured.server.port(),
        bed.database
    );
    let launch = launch(&bed).set("postgres.url", url);
    let parts = ["can't be trusted", "sslrootcert"];
    refused(&launch, 3, &parts).await;
    // Where OpenSSL's variable, which others know as well, says what that is.
    let trusting = launch.variable("SSL_CERT_FILE", secured.file("ca.crt"));
    trusting.start().await.stop().await;
    bed.drop_slot().await;
}
