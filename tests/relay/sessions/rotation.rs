//! Passwords and certificates in files that change, or that come late.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use factlib::testing::{Authority, PostgresServer, shared_kafka};
use tempfile::TempDir;

use super::relayed;
use crate::support::{Bed, History, relay::Launch};

const RETRIES: &str = "starting again after a pause";

pub(super) fn write(path: &Path, text: &str) {
    // As mounted secrets change: at once and whole.
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::rename(&new, path).expect("renamed");
}

/// Ends all sessions of the role: each has to log in anew.
pub(super) async fn hang_up(postgres: &PostgresServer) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay'";
    postgres.execute("postgres", end).await.expect("ended");
}

#[tokio::test]
async fn a_password_file_is_read_at_each_connection_and_waited_for() {
    let postgres = PostgresServer::builder().hba("host all relay all scram-sha-256");
    let postgres = postgres.start().await.expect("PostgreSQL starts");
    let role = "CREATE ROLE relay SUPERUSER LOGIN PASSWORD 'one'";
    postgres.execute("postgres", role).await.expect("a role");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, kafka, "rotation").await;
    let (folder, port) = (TempDir::new().expect("a folder"), postgres.port());
    let file = folder.path().join("password");
    write(&file, "one\n");
    let url = format!("host=127.0.0.1 port={port} user=relay dbname={}", bed.database);
    let launch = Launch::new(&bed, Default::default())
        .set("postgres.url", url)
        .set("postgres.password_file", file.display().to_string());
    let relay = launch.start().await;
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;

    // The server first, the file some time later.
    let change = "ALTER ROLE relay PASSWORD 'two'";
    postgres.execute("postgres", change).await.expect("changed");
    hang_up(&postgres).await;
    relay.says("password authentication failed").await;
    relay.says(&file.display().to_string()).await;
    write(&file, "two\n");
    relayed(&bed, "bb", &mut history).await;
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[tokio::test]
async fn a_passfile_that_comes_late_is_waited_for() {
    let postgres = PostgresServer::builder().hba("host all relay all scram-sha-256");
    let postgres = postgres.start().await.expect("PostgreSQL starts");
    let role = "CREATE ROLE relay SUPERUSER LOGIN PASSWORD 'one'";
    postgres.execute("postgres", role).await.expect("a role");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, kafka, "passfile").await;
    let (folder, port) = (TempDir::new().expect("a folder"), postgres.port());
    let file = folder.path().join("pgpass");
    let url = format!(
        "host=127.0.0.1 port={port} user=relay dbname={} passfile={}",
        bed.database,
        file.display()
    );
    let launch = Launch::new(&bed, Default::default()).set("postgres.url", url);
    let relay = launch.spawn();
    relay.says(RETRIES).await;
    relay.says(&file.display().to_string()).await;
    write(&file, "*:*:*:relay:one\n");
    relay.says("relay running").await;
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[tokio::test]
async fn certificates_are_read_at_each_connection_and_waited_for() {
    let authority = Authority::new("factlib tests").expect("an authority");
    let server = authority.server(&["localhost", "127.0.0.1"]).expect("a certificate");
    let postgres = PostgresServer::builder()
        .ssl(server.certificate, server.key)
        .client_ca(authority.certificate())
        .hba("hostssl all relay all cert");
    let postgres = postgres.start().await.expect("PostgreSQL starts");
    postgres.execute("postgres", "CREATE ROLE relay SUPERUSER LOGIN").await.expect("a role");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, kafka, "certificates").await;
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    write(&path("ca.crt"), authority.certificate());
    let renew = || {
        let ours = authority.client("relay").expect("a certificate");
        write(&path("client.crt"), &ours.certificate);
        write(&path("client.key"), &ours.key);
    };
    renew();
    let url = format!(
        "host=localhost port={} user=relay dbname={} sslmode=verify-full sslrootcert={} \
         sslcert={} sslkey={}",
        postgres.port(),
        bed.database,
        path("ca.crt").display(),
        path("client.crt").display(),
        path("client.key").display()
    );
    let relay = Launch::new(&bed, Default::default()).set("postgres.url", url).start().await;
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;
    // As they are replaced, there may be none for a moment, or two that do not fit.
    fs::remove_file(path("client.key")).expect("removed");
    hang_up(&postgres).await;
    relay.says("client.key").await;
    renew();
    relayed(&bed, "bb", &mut history).await;
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
