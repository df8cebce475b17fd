//! What a connection string may ask for beyond hosts and passwords: services, ways to log in,
//! versions of TLS, revoked certificates, the order of hosts.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::{
    ErrorKind,
    config::{Config, StoreKind},
    setup,
    testing::{PostgresServer, shared_postgres},
};
use tokio::process::Command;

use super::{Guarded, closed_port, port, quiet, refused, replicates, settings};

#[tokio::test]
async fn what_libpq_would_print_of_a_password_is_refused_and_not_repeated() {
    for url in [
        "postgresql://u:S3cr@hunter2@db/shop",
        "postgresql://u:1/hunter2@db/shop",
        "postgresql://hunter2/p@db/shop",
        "host=hunter2@db user=u",
    ] {
        refused(url, ErrorKind::Config, &["%40"]).await;
    }
    let parts = ["what follows the password", "quoted"];
    refused("host=db password=a hunter2=b", ErrorKind::Config, &parts).await;
    refused("host=db krbsrvname=pg", ErrorKind::Config, &["krbsrvname", "not supported"]).await;
}

#[tokio::test]
async fn a_service_is_read_from_its_file_and_from_the_environment() {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("services.conf");
    let text = format!(
        "# for tests\n[shop]\nhost=127.0.0.1\nport={}\nuser=postgres\ndbname=postgres\n",
        server.port()
    );
    std::fs::write(&path, text).expect("written");
    let file = path.display();
    let url = format!("service=shop servicefile={file} sslmode=disable");
    assert_eq!(port(&url).await, server.port().to_string());
    replicates(&url, &quiet()).await.expect("both kinds of connection know it");
    let url = format!("postgresql:///?service=nobody&servicefile={file}");
    refused(&url, ErrorKind::Config, &["service nobody", "services.conf"]).await;

    // An empty string leaves all to the environment, which must not end at localhost.
    let doctor = |service: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        command.args([
            "doctor",
            "--brokers",
            "127.0.0.1:1",
            "--set",
            "postgres.url=sslmode=disable",
        ]);
        command.env_clear().current_dir(folder.path());
        command.args(["--set", "pipeline.startup_timeout=1s"]);
        command.env("PGSERVICE", service).env("PGSERVICEFILE", &path);
        command
    };
    let output = doctor("shop").output().await.expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let there = format!("127.0.0.1:{}/postgres as postgres", server.port());
    assert!(text.contains(&there), "{text}");
    let output = doctor("nobody").output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test]
async fn a_log_in_that_require_auth_does_not_allow_is_refused_by_both_connections() {
    let guarded = Guarded::shared().await;
    let url = |user: &str, auth: &str| {
        guarded.on_loopback(&format!("user={user} sslmode=disable require_auth={auth}"))
    };
    let open = shared_postgres().await.expect("a PostgreSQL").port();
    let trusted = |auth: &str| {
        format!("host=127.0.0.1 port={open} user=postgres dbname=postgres require_auth={auth}")
    };
    for allowed in [
        url("scram", "scram-sha-256"),
        url("md5", "md5,scram-sha-256"),
        url("clear", "password"),
        url("scram", "!password,!md5,!none"),
        trusted("none"),
    ] {
        replicates(&allowed, &quiet()).await.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    for (forbidden, method) in [
        (url("md5", "scram-sha-256"), "md5"),
        (url("clear", "!password"), "password"),
        (url("scram", "!scram-sha-256"), "scram-sha-256"),
        (trusted("scram-sha-256"), "without asking"),
    ] {
        let parts = ["require_auth=", method, "pg_hba.conf"];
        refused(&forbidden, ErrorKind::PostgresRefused, &parts).await;
    }
}

/// A file of `tests/security/connection/revocation`: an authority, a certificate of its for localhost that
/// is valid for a hundred years, and two lists of what it revoked: nothing, and that.
fn revocation(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/security/connection/revocation").join(name)
}

#[tokio::test]
async fn a_revoked_certificate_and_another_version_of_tls_are_refused() {
    let text = |name: &str| std::fs::read_to_string(revocation(name)).expect(name);
    let server = PostgresServer::builder()
        .ssl(text("server.crt"), text("server.key"))
        .setting("ssl_max_protocol_version", "TLSv1.2")
        .start()
        .await
        .expect("a PostgreSQL");
    let url = |more: &str| {
        format!(
            "host=localhost port={} user=postgres dbname=postgres sslmode=verify-full \
             sslrootcert={} {more}",
            server.port(),
            revocation("ca.crt").display()
        )
    };
    let list = |name: &str| url(&format!("sslcrl={}", revocation(name).display()));
    for allowed in [
        url(""),
        list("none.crl"),
        url("ssl_max_protocol_version=TLSv1.2"),
        url("ssl_min_protocol_version=TLSv1.1"),
    ] {
        replicates(&allowed, &quiet()).await.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    let refusal = ["can't be trusted", "revoked"];
    refused(&list("revoked.crl"), ErrorKind::PostgresRefused, &refusal).await;
    // A file that is named may come late.
    let parts = ["sslcrl", "missing.crl"];
    refused(&list("missing.crl"), ErrorKind::PostgresUnavailable, &parts).await;
    let folder = tempfile::tempdir().expect("a folder");
    // No authority's list is in it.
    let url_of_folder = url(&format!("sslcrldir={}", folder.path().display()));
    let parts = ["can't be trusted", "no revocation list"];
    refused(&url_of_folder, ErrorKind::PostgresRefused, &parts).await;
    let newer = url("ssl_min_protocol_version=TLSv1.3");
    refused(&newer, ErrorKind::PostgresUnavailable, &["TLS handshake"]).await;
}

/// A port that takes connections and never says a word, and how often it was asked.
fn silent_port() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            count.fetch_add(1, Relaxed);
            open.push(stream);
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_host_that_is_silent_is_waited_for_once_and_not_at_every_connection() {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let database = server.create_database("silent").await.expect("a database");
    let (silent, asked) = silent_port();
    let hosts = format!("127.0.0.1:{silent},127.0.0.1:{}", server.port());
    let url = format!("postgresql://postgres@{hosts}/{database}?sslmode=disable");
    let mut config = Config::default();
    config.postgres = settings(&url);
    config.postgres.connect_timeout = Duration::from_secs(4);
    config.postgres.slot.clone_from(&database);
    config.checkpoint.store = StoreKind::Postgres;
    // Statements, replication, checkpoints, dead letters: a connection each.
    setup(&config, false, &quiet()).await.expect("the second host lets in");
    assert_eq!(asked.load(Relaxed), 1, "the first host was asked again and again");
    let drop_slot = format!("SELECT pg_drop_replication_slot('{database}')");
    server.execute(&database, &drop_slot).await.expect("dropped");
}

#[tokio::test]
async fn hosts_are_tried_in_random_order_where_that_is_asked_for() {
    let first = shared_postgres().await.expect("a PostgreSQL").port();
    let second = Guarded::shared().await.server.port();
    let hosts = format!("127.0.0.1:{first},127.0.0.1:{second},127.0.0.1:{}", closed_port());
    let url = |order: &str| {
        format!("postgresql://postgres@{hosts}/postgres?sslmode=disable&load_balance_hosts={order}")
    };
    assert_eq!(port(&url("disable")).await, first.to_string());
    let mut chosen = BTreeSet::new();
    // Neither is left out fifty times by chance.
    for _ in 0..50 {
        chosen.insert(port(&url("random")).await);
        if chosen.len() == 2 {
            break;
        }
    }
    assert_eq!(chosen.len(), 2, "{chosen:?}");
}
