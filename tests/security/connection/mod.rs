//! Ways to PostgreSQL: passwords, TLS, sockets, several hosts; real servers.
//!
//! [`connect`] makes an ordinary connection, [`setup`] that and a replication
//! connection, which has its own log-in: what lets one in has to let in the other.

mod poolers;
mod strings;

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use factlib::{
    Error, ErrorKind,
    config::{Config, PostgresConfig, RefusalPolicy, StoreKind},
    postgres::connect,
    setup,
    testing::{CollectedLogs, PostgresServer, SelfSigned, shared_postgres},
};
use slog::{Discard, Logger, o};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

/// The password of every role, and in no error.
const SECRET: &str = "hunter2";

/// A server with TLS and one role for each kind of log-in.
struct Guarded {
    server: PostgresServer,
    files: TempDir,
}

impl Guarded {
    async fn shared() -> &'static Guarded {
        static GUARDED: OnceCell<Guarded> = OnceCell::const_new();
        GUARDED.get_or_init(Guarded::start).await
    }

    async fn start() -> Self {
        let ours = SelfSigned::new("db.example").expect("a certificate");
        let theirs = SelfSigned::new("db.example").expect("a certificate");
        let files = tempfile::tempdir().expect("a temporary folder");
        for (name, pem) in [("ours.crt", &ours.certificate), ("theirs.crt", &theirs.certificate)] {
            std::fs::write(files.path().join(name), pem).expect("written");
        }
        let mut builder = PostgresServer::builder().ssl(ours.certificate, ours.key);
        if let Some(address) = own_address() {
            builder = builder.setting("listen_addresses", format!("127.0.0.1,{address}"));
        }
        for line in [
            "host all scram all scram-sha-256",
            "host all md5 all md5",
            "host all clear all password",
            "hostssl all only_tls all scram-sha-256",
            "hostnossl all only_tls all reject",
            "hostssl all no_tls all reject",
            "hostnossl all no_tls all scram-sha-256",
        ] {
            builder = builder.hba(line);
        }
        let server = builder.start().await.expect("a PostgreSQL");
        for role in ["scram", "md5", "clear", "only_tls", "no_tls"] {
            let method = if role == "md5" { "md5" } else { "scram-sha-256" };
            let create = format!(
                "SET password_encryption = '{method}'; CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{SECRET}'"
            );
            server.execute("postgres", &create).await.expect("a role");
        }
        Guarded { server, files }
    }

    /// A connection string to it on the loopback, with the right password.
    fn on_loopback(&self, more: &str) -> String {
        self.at("host=127.0.0.1", more)
    }

    fn at(&self, host: &str, more: &str) -> String {
        format!("{host} port={} dbname=postgres password={SECRET} {more}", self.server.port())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// `sslrootcert=` the certificate that the server has.
    fn root(&self) -> String {
        format!("sslrootcert={}", self.file("ours.crt").display())
    }

    /// `sslrootcert=` one of the same name that it has not.
    fn wrong_root(&self) -> String {
        format!("sslrootcert={}", self.file("theirs.crt").display())
    }
}

/// The address of this machine that others see, if it has one. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // TEST-NET-3: an address that no host has, so only the route to it matters.
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn quiet() -> Logger {
    Logger::root(Discard, o!())
}

fn settings(url: &str) -> PostgresConfig {
    let mut settings = PostgresConfig::default();
    settings.url = url.to_owned().into();
    settings
}

async fn client(url: &str) -> Result<Client, Error> {
    let result = connect(&settings(url), &quiet()).await;
    if let Err(error) = &result {
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
    result
}

/// Connects for statements and for replication, and takes away what that made.
async fn replicates(url: &str, log: &Logger) -> Result<(), Error> {
    let slot = format!("connection_{}", uuid::Uuid::now_v7().simple());
    let mut config = Config::default();
    config.postgres = settings(url);
    config.postgres.slot = slot.clone();
    // Others connect to the same database at the same time.
    config.postgres.publication = slot.clone();
    config.checkpoint.store = StoreKind::Memory;
    config.dead_letter.policy = RefusalPolicy::Stop;
    setup(&config, false, log).await?;
    let client = client(url).await?;
    client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await.expect("dropped");
    let drop_publication = format!("DROP PUBLICATION {slot}");
    client.batch_execute(&drop_publication).await.expect("dropped");
    Ok(())
}

/// Lets both kinds of connection in; tells whether they are encrypted.
async fn encrypted(url: &str) -> bool {
    replicates(url, &quiet()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let client = client(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(query, &[]).await.expect("answered").get(0)
}

/// Refused, with all of `parts` in the text.
async fn refused(url: &str, kind: ErrorKind, parts: &[&str]) {
    let error = client(url).await.map(|_| ()).expect_err(url);
    assert_eq!(error.kind(), kind, "{url}: {error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

async fn port(url: &str) -> String {
    let client = client(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    client.query_one("SHOW port", &[]).await.expect("answered").get(0)
}

#[tokio::test]
async fn the_right_password_lets_in_and_a_wrong_one_does_not() {
    let guarded = Guarded::shared().await;
    for user in ["scram", "md5", "clear"] {
        for mode in ["disable", "require"] {
            let more = format!("user={user} sslmode={mode}");
            assert_eq!(encrypted(&guarded.on_loopback(&more)).await, mode == "require");
            let wrong = guarded.on_loopback(&format!("{more} password={SECRET}2"));
            let parts = ["password authentication failed", user, "28P01", "pg_hba.conf"];
            refused(&wrong, ErrorKind::PostgresRefused, &parts).await;
        }
        let none = guarded.on_loopback(&format!("user={user} password='' passfile=/nowhere"));
        // A file that is named may come late.
        refused(&none, ErrorKind::PostgresUnavailable, &["password missing", "/nowhere"]).await;
    }
}

#[tokio::test]
async fn a_password_file_is_read_unless_others_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let guarded = Guarded::shared().await;
    let path = guarded.file("passfile");
    let line = format!("127.0.0.1:{}:postgres:scram:{SECRET}\n", guarded.server.port());
    std::fs::write(&path, line).expect("written");
    let mode = |mode| {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("changed");
    };
    let more = format!("user=scram password='' passfile={}", path.display());
    mode(0o600);
    encrypted(&guarded.on_loopback(&more)).await;
    mode(0o644);
    refused(&guarded.on_loopback(&more), ErrorKind::PostgresUnavailable, &["password missing"])
        .await;
}

#[tokio::test]
async fn sslmode_decides_whether_a_server_that_has_tls_is_asked_for_it() {
    let guarded = Guarded::shared().await;
    for (mode, tls) in [
        ("disable", false),
        ("allow", false),
        ("prefer", true),
        ("require", true),
        ("verify-ca", true),
        ("verify-full", true),
    ] {
        let more = format!("user=scram sslmode={mode} {}", guarded.root());
        assert_eq!(encrypted(&guarded.on_loopback(&more)).await, tls, "{mode}");
    }
    // Without a mode as with prefer, on this host.
    assert!(encrypted(&guarded.on_loopback("user=scram")).await);
}

#[tokio::test]
async fn pg_hba_decides_where_sslmode_leaves_the_choice() {
    let guarded = Guarded::shared().await;
    for (more, tls) in [
        ("user=only_tls sslmode=allow", true),
        ("user=only_tls sslmode=prefer", true),
        ("user=no_tls sslmode=allow", false),
        ("user=no_tls sslmode=prefer", false),
    ] {
        assert_eq!(encrypted(&guarded.on_loopback(more)).await, tls, "{more}");
    }
    for more in ["user=only_tls sslmode=disable", "user=no_tls sslmode=require"] {
        let parts = ["28000", "pg_hba.conf"];
        refused(&guarded.on_loopback(more), ErrorKind::PostgresRefused, &parts).await;
    }
}

#[tokio::test]
async fn a_wrong_password_under_tls_is_not_sent_again_without() {
    let tls = SelfSigned::new("db.example").expect("a certificate");
    let builder = PostgresServer::builder().password(SECRET).ssl(tls.certificate, tls.key);
    let server = builder.start().await.expect("a PostgreSQL");
    let url = format!("{}?sslmode=prefer&password=wrong", server.url());
    refused(&url, ErrorKind::PostgresRefused, &["28P01"]).await;
    let log = server.log();
    assert_eq!(log.matches("password authentication failed").count(), 1, "{log}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let url = shared_postgres().await.expect("a PostgreSQL").url();
    for mode in ["disable", "allow", "prefer"] {
        assert!(!encrypted(&format!("{url}?sslmode={mode}")).await, "{mode}");
    }
    let root = Guarded::shared().await.root();
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{url}?sslmode={mode}&{root}");
        refused(&url, ErrorKind::PostgresRefused, &["does not offer TLS", "ssl = on"]).await;
    }
}

#[tokio::test]
async fn verify_full_asks_for_the_name_and_verify_ca_does_not() {
    let guarded = Guarded::shared().await;
    let root = guarded.root();
    for (host, mode) in [
        ("host=127.0.0.1", "verify-full"),
        ("host=localhost hostaddr=127.0.0.1", "verify-full"),
        ("host=other.example hostaddr=127.0.0.1", "verify-ca"),
    ] {
        let url = guarded.at(host, &format!("user=scram sslmode={mode} {root}"));
        assert!(encrypted(&url).await, "{host} {mode}");
    }
    let other = "host=other.example hostaddr=127.0.0.1";
    let url = guarded.at(other, &format!("user=scram sslmode=verify-full {root}"));
    let parts = ["other.example", "can't be trusted", "it is for localhost", "connect by a name"];
    refused(&url, ErrorKind::PostgresRefused, &parts).await;
    let url = guarded.at("hostaddr=127.0.0.1", &format!("user=scram sslmode=verify-full {root}"));
    refused(&url, ErrorKind::Config, &["host of the PostgreSQL connection string"]).await;
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_is_not_trusted_is_refused() {
    let guarded = Guarded::shared().await;
    let wrong = guarded.wrong_root();
    // libpq: a root certificate that is there is used, also by require.
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = guarded.on_loopback(&format!("user=scram sslmode={mode} {wrong}"));
        let parts = ["can't be trusted", "theirs.crt"];
        refused(&url, ErrorKind::PostgresRefused, &parts).await;
    }
    // And prefer goes on without TLS.
    let url = guarded.on_loopback(&format!("user=scram sslmode=prefer {wrong}"));
    assert!(!encrypted(&url).await);
    for mode in ["verify-ca", "verify-full"] {
        let url = format!("user=scram sslmode={mode} sslrootcert=/nowhere/root.crt");
        let parts = ["sslrootcert", "/nowhere/root.crt"];
        refused(&guarded.on_loopback(&url), ErrorKind::PostgresUnavailable, &parts).await;
    }
    // The system trusts authorities, and not this one.
    let url = guarded.on_loopback("user=scram sslrootcert=system");
    refused(&url, ErrorKind::PostgresRefused, &["can't be trusted", "sslrootcert"]).await;
}

#[tokio::test]
async fn channel_binding_is_had_or_refused() {
    let guarded = Guarded::shared().await;
    let url = |more: &str| guarded.on_loopback(&format!("channel_binding=require {more}"));
    assert!(encrypted(&url("user=scram sslmode=require")).await);
    for more in [
        "user=scram sslmode=disable",
        "user=md5 sslmode=require",
        "user=clear sslmode=require",
        // No password is asked of this one.
        "user=postgres sslmode=require",
    ] {
        refused(&url(more), ErrorKind::PostgresRefused, &["channel"]).await;
    }
    let more = "user=scram sslmode=require channel_binding=disable";
    assert!(encrypted(&guarded.on_loopback(more)).await);
}

#[tokio::test]
async fn a_unix_socket_needs_no_tls_whatever_sslmode_says() {
    let guarded = Guarded::shared().await;
    let (folder, number) = (guarded.server.socket_dir().display(), guarded.server.port());
    for more in ["", " sslmode=require", " sslmode=verify-full sslrootcert=/nowhere"] {
        let url = format!("host={folder} port={number} user=postgres dbname=postgres{more}");
        assert!(!encrypted(&url).await, "{more}");
    }
    let encoded = folder.to_string().replace('/', "%2F");
    assert!(!encrypted(&format!("postgresql://postgres@{encoded}:{number}/postgres")).await);
    let nowhere = "host=/nowhere user=postgres";
    refused(nowhere, ErrorKind::PostgresUnavailable, &["/nowhere:5432"]).await;
}

#[tokio::test]
async fn a_host_that_is_dead_or_silent_is_passed_over() {
    let live = shared_postgres().await.expect("a PostgreSQL").port();
    let dead = closed_port();
    let url = |hosts: &str| format!("postgresql://postgres@{hosts}/postgres");
    let first_dead = url(&format!("127.0.0.1:{dead},127.0.0.1:{live}"));
    assert_eq!(port(&first_dead).await, live.to_string());
    replicates(&first_dead, &quiet()).await.expect("the second host lets in");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = listener.local_addr().expect("bound").port();
    let mut config = settings(&url(&format!("127.0.0.1:{silent},127.0.0.1:{live}")));
    config.connect_timeout = Duration::from_secs(2);
    let begun = Instant::now();
    connect(&config, &quiet()).await.expect("the second host lets in");
    assert!(begun.elapsed() < config.connect_timeout, "{:?}", begun.elapsed());

    let hosts = format!("127.0.0.1:{dead},127.0.0.1:{}", closed_port());
    let parts = ["no PostgreSQL server at", &hosts, "Connection refused"];
    refused(&url(&hosts), ErrorKind::PostgresUnavailable, &parts).await;
}

#[tokio::test]
async fn a_login_that_a_host_refuses_is_not_tried_at_the_next() {
    let guarded = Guarded::shared().await.server.port();
    let open = shared_postgres().await.expect("a PostgreSQL").port();
    let url = format!("postgresql://scram:wrong@127.0.0.1:{guarded},127.0.0.1:{open}/postgres");
    refused(&url, ErrorKind::PostgresRefused, &["28P01"]).await;
}

#[tokio::test]
async fn target_session_attrs_chooses_among_hosts() {
    let writable = shared_postgres().await.expect("a PostgreSQL").port();
    let server = PostgresServer::builder().setting("default_transaction_read_only", "on").start();
    let server = server.await.expect("a PostgreSQL");
    let read_only = server.port();
    let url = |first, second, target| {
        format!(
            "postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?target_session_attrs={target}"
        )
    };
    for (target, chosen) in [
        ("any", read_only),
        ("read-write", writable),
        ("read-only", read_only),
        // Neither is in recovery.
        ("primary", read_only),
        ("prefer-standby", read_only),
    ] {
        let url = url(read_only, writable, target);
        assert_eq!(port(&url).await, chosen.to_string(), "{target}");
    }
    let wanted = url(read_only, writable, "read-write");
    replicates(&wanted, &quiet()).await.expect("both connections find the server that writes");
    let parts = ["target_session_attrs", "no PostgreSQL server at"];
    refused(&url(read_only, writable, "standby"), ErrorKind::PostgresUnavailable, &parts).await;
}

/// What was logged of how safe the connection is.
async fn warnings(url: &str) -> Vec<String> {
    let (log, logged) = CollectedLogs::logger();
    replicates(url, &log).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let lines = logged.lines().into_iter().filter(|line| line.level == slog::Level::Warning);
    lines.map(|line| line.message).collect()
}

#[tokio::test]
async fn a_connection_that_others_can_read_is_warned_of_once() {
    let guarded = Guarded::shared().await;
    for mode in ["disable", "require"] {
        let more = format!("user=scram sslmode={mode}");
        assert_eq!(warnings(&guarded.on_loopback(&more)).await, [""; 0]);
    }
    let Some(address) = own_address() else {
        eprintln!(
            "this machine has no address but the loopback's: crates/factlib-postgres/src/connector.rs tests the decision"
        );
        return;
    };
    let at = format!("host=localhost hostaddr={address}");
    let warned = async |more: &str| warnings(&guarded.at(&at, &format!("user=scram {more}"))).await;
    let unencrypted = warned("sslmode=disable").await;
    assert_eq!(unencrypted.len(), 1, "{unencrypted:?}");
    assert!(unencrypted[0].contains("not encrypted"));
    let unverified = warned("sslmode=require").await;
    assert_eq!(unverified.len(), 1, "{unverified:?}");
    assert!(unverified[0].contains("not verified"));
    let verified = warned(&format!("sslmode=verify-full {}", guarded.root())).await;
    assert_eq!(verified, [""; 0]);
}

#[tokio::test]
async fn over_a_network_the_server_is_verified_unless_sslmode_says_otherwise() {
    let guarded = Guarded::shared().await;
    let Some(address) = own_address() else {
        eprintln!(
            "this machine has no address but the loopback's: crates/factlib-postgres/src/connect_info.rs tests the decision"
        );
        return;
    };
    let at = |host: &str, more: &str| {
        guarded.at(&format!("host={host} hostaddr={address}"), &format!("user=scram {more}"))
    };
    let parts = ["can't be trusted", "sslrootcert"];
    refused(&at("localhost", ""), ErrorKind::PostgresRefused, &parts).await;
    let parts = ["can't be trusted", "it is for localhost"];
    refused(&at("db2.example", &guarded.root()), ErrorKind::PostgresRefused, &parts).await;
    assert!(encrypted(&at("localhost", &guarded.root())).await);
    assert!(!encrypted(&at("localhost", "sslmode=disable")).await);
}

#[tokio::test]
async fn a_password_goes_in_clear_to_nobody_but_the_server() {
    let guarded = Guarded::shared().await;
    let Some(address) = own_address() else {
        eprintln!(
            "this machine has no address but the loopback's: crates/factlib-postgres/src/sql.rs tests the guard"
        );
        return;
    };
    let at = format!("hostaddr={address}");
    let url = guarded.at(&at, "user=clear sslmode=disable");
    let parts = ["in clear", "not encrypted", "scram-sha-256"];
    refused(&url, ErrorKind::PostgresRefused, &parts).await;
    assert!(encrypted(&guarded.at(&at, "user=clear sslmode=require")).await);
}

#[tokio::test]
async fn a_mistake_in_the_string_names_the_parameter_and_not_the_password() {
    for (url, parts) in [
        ("postgresql://u:hunter2@h/d?sslmode=on", &["sslmode", "verify-full"][..]),
        ("postgresql://u:hunter2@h/d?colour=red", &["colour", "unknown"]),
        ("postgresql://u:hunter2@h/d?target_session_attrs=master", &["target_session_attrs"]),
        ("postgresql://u:hunter2@h/d?connect_timeout=soon", &["connect_timeout", "number"]),
        ("postgresql://u:hunter2@h:port/d", &["port", "1 to 65535"]),
        ("postgresql://u:hunter2@h:0/d", &["port", "1 to 65535"]),
        ("postgresql://u:hunter2@h/d?hostaddr=h", &["hostaddr", "address"]),
        ("postgresql://u:hunter2@a,b/d?port=1,2,3", &["port", "3 items for 2 hosts"]),
        ("postgresql://u:hunter2@h/d?channel_binding=yes", &["channel_binding", "require"]),
        ("postgresql://u:hunter2@h/d?gssencmode=require", &["gssencmode"]),
        ("postgresql://u:hunter2@h/d?replication=database", &["replication", "leave it out"]),
        ("postgresql://u:hunter2@h/d?sslrootcert=system&sslmode=require", &["sslmode"]),
        ("postgresql://u:hunter2@h/d?sslnegotiation=direct", &["sslmode", "sslnegotiation"]),
        ("postgresql://u:hunter2%zz@h/d", &["hexadecimal"]),
        ("postgresql://u:hunter2@[::1/d", &["closing bracket"]),
        ("mysql://u:hunter2@h/d", &["postgresql://"]),
        ("host=h password='hunter2", &["closing quote"]),
        ("host=h hunter2", &["="]),
    ] {
        refused(url, ErrorKind::Config, parts).await;
    }
}
