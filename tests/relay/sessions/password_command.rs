//! Passwords from a command, as the tokens of cloud providers come: anew for each connection.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use factlib::testing::{PostgresServer, shared_kafka};
use tempfile::TempDir;

use super::{
    relayed,
    rotation::{hang_up, write},
};
use crate::support::{Bed, History, relay::Launch};

/// A command that can be replaced while the relay runs; it notes each of its runs.
struct Token {
    folder: TempDir,
}

impl Token {
    fn new() -> Self {
        let token = Token { folder: TempDir::new().expect("a folder") };
        token.answers("exit 1");
        token
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Has it do this from now on.
    fn answers(&self, script: &str) {
        let runs = self.folder.path().join("runs");
        let script =
            format!("#!/bin/sh\necho $PGUSER@$PGHOST:$PGPORT >> {}\n{script}\n", runs.display());
        write(&self.path(), &script);
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o700)).expect("changed");
    }

    fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.folder.path().join("runs")).unwrap_or_default();
        runs.lines().map(Into::into).collect()
    }
}

/// A server that lets the role `relay` in by password only.
async fn server() -> PostgresServer {
    let postgres = PostgresServer::builder().hba("host all relay all scram-sha-256");
    let postgres = postgres.start().await.expect("PostgreSQL starts");
    let role = "CREATE ROLE relay SUPERUSER LOGIN PASSWORD 'first-token'";
    postgres.execute("postgres", role).await.expect("a role");
    postgres
}

fn launch(bed: &Bed<'_>, token: &Token) -> Launch {
    let port = bed.postgres.port();
    let url = format!("host=127.0.0.1 port={port} user=relay dbname={}", bed.database);
    Launch::new(bed, Default::default())
        .set("postgres.url", url)
        .set("postgres.password_command", format!("[{:?}]", token.path()))
        .set("postgres.connect_timeout", "2s")
        .set("log.level", "trace")
}

#[tokio::test]
async fn a_command_is_asked_at_each_connection_and_its_failures_are_waited_out() {
    let (postgres, kafka) = (server().await, shared_kafka().await.expect("Kafka starts"));
    let bed = Bed::on(&postgres, kafka, "token").await;
    let token = Token::new();
    token.answers("echo first-token");
    let relay = launch(&bed, &token).start().await;
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;
    let runs = token.runs();
    assert!(runs.len() >= 2, "replication and statements: {runs:?}");
    let server = format!("relay@127.0.0.1:{}", postgres.port());
    assert!(runs.iter().all(|run| *run == server), "{runs:?}");

    // The password changes; the command is behind it, and then fails in each way.
    let change = "ALTER ROLE relay PASSWORD 'second-token'";
    postgres.execute("postgres", change).await.expect("changed");
    hang_up(&postgres).await;
    relay
        .says("the password that the password command token printed is missing or was refused")
        .await;
    for (script, said) in [
        (
            "echo second-token; echo no rights for second-token >&2; exit 3",
            "failed (exit status: 3): no rights for [redacted]",
        ),
        (
            "echo log in at https://id.example >&2; sleep 600",
            "has not ended within 2s and was killed: log in at https://id.example",
        ),
        ("echo nothing today >&2", "printed no password: nothing today"),
    ] {
        token.answers(script);
        relay.says(said).await;
    }
    token.answers("echo second-token");
    relayed(&bed, "bb", &mut history).await;
    let shown = relay.output();
    assert!(!shown.contains("first-token") && !shown.contains("second-token"), "{shown}");
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[tokio::test]
async fn doctor_says_why_a_command_gives_no_password() {
    let (postgres, kafka) = (server().await, shared_kafka().await.expect("Kafka starts"));
    let bed = Bed::on(&postgres, kafka, "token_doctor").await;
    let token = Token::new();
    // A setting of ours may be a secret: the command does not see it.
    token.answers("echo \"sees ${FACTLIB_POSTGRES__URL-nothing}\" >&2; exit 4");
    let program = launch(&bed, &token).program(&["doctor"]);
    program.ended(crate::support::bed::LIMIT).await.expect("it ends");
    let output = program.output();
    assert!(output.contains("failed (exit status: 4): sees nothing"), "{output}");
    assert!(output.contains("to print the password as the first line"), "{output}");
}
