//! A pooler between us and the server: what it refuses, and how little we ask of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use factlib::{
    ErrorKind,
    testing::{Program, shared_postgres},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::{client, quiet, replicates};

/// Start-up parameters that PgBouncer takes, beside `replication` from 1.23 on.
const TRACKED: [&str; 8] = [
    "user",
    "database",
    "replication",
    "application_name",
    "client_encoding",
    "datestyle",
    "timezone",
    "standard_conforming_strings",
];

/// What a pooler does with the start-up parameter `replication`.
#[derive(Clone, Copy)]
enum Replication {
    PassedOn,
    /// So that the server takes the connection for an ordinary one.
    Dropped,
}

/// Refuses start-up parameters as PgBouncer does, and passes all else on to a server. Answers its
/// port.
async fn strict_pooler(server: u16, replication: Replication) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pool(stream, server, replication));
        }
    });
    port
}

/// The start-up message without the parameter `replication`.
fn without_replication(startup: &[u8]) -> Vec<u8> {
    const PARAMETER: &[u8] = b"replication\0database\0";
    let at = startup.windows(PARAMETER.len()).position(|window| window == PARAMETER);
    let Some(at) = at else { return startup.to_vec() };
    let length = (startup.len() - PARAMETER.len()) as u32;
    [&length.to_be_bytes(), &startup[4..at], &startup[at + PARAMETER.len()..]].concat()
}

async fn pool(mut client: TcpStream, server: u16, replication: Replication) -> std::io::Result<()> {
    let startup = loop {
        let length = client.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await?;
        // The request for TLS, which it has not.
        if body == 80_877_103_u32.to_be_bytes() {
            client.write_all(b"N").await?;
            continue;
        }
        break [&length.to_be_bytes()[..], &body].concat();
    };
    let words: Vec<_> = startup[8..].split(|byte| *byte == 0).collect();
    let names = words.chunks(2).map(|pair| String::from_utf8_lossy(pair[0]).into_owned());
    let mut names = names.filter(|name| !name.is_empty());
    if let Some(name) = names.find(|name| !TRACKED.contains(&&*name.to_lowercase())) {
        let fields = format!("SFATAL\0C08P01\0Munsupported startup parameter: {name}\0\0");
        let length = (fields.len() + 4) as u32;
        client.write_all(&[b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()).await?;
        return client.shutdown().await;
    }
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let startup = match replication {
        Replication::PassedOn => startup,
        Replication::Dropped => without_replication(&startup),
    };
    server.write_all(&startup).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[tokio::test]
async fn no_start_up_parameter_is_sent_that_a_pooler_does_not_track() {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let port = strict_pooler(server.port(), Replication::PassedOn).await;
    let url = |more: &str| {
        format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable {more}")
    };
    replicates(&url(""), &quiet()).await.expect("both kinds of connection are let in");

    let error = client(&url("options='-c geqo=off'")).await.map(drop).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
    assert!(error.to_string().contains("ignore_startup_parameters"), "{error}");
}

#[tokio::test]
async fn a_pooler_that_drops_replication_is_named() {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let port = strict_pooler(server.port(), Replication::Dropped).await;
    let url = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable");
    let error = replicates(&url, &quiet()).await.expect_err("no replication");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
    let text = error.to_string();
    assert!(text.contains("does not know replication"), "{text}");
    assert!(text.contains("name PostgreSQL itself in postgres.url"), "{text}");
}

/// A PgBouncer before this server, in a mode.
struct PgBouncer {
    program: Program,
    port: u16,
}

impl PgBouncer {
    async fn start(mode: &str, server: u16) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let port = super::closed_port();
        let users = folder.path().join("users.txt");
        std::fs::write(&users, "\"postgres\" \"\"\n").expect("written");
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = {mode}\n",
            users.display()
        );
        std::fs::write(&settings, text).expect("written");
        for path in [folder.path(), &users, &settings] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("readable");
        }
        // It does not run as root.
        let user = ["-u".to_owned(), "nobody".to_owned()];
        let args = user.into_iter().chain([settings.display().to_string()]).collect::<Vec<_>>();
        let program = Program::start(&binary(), &args, &[]).expect("PgBouncer starts");
        let listening = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(program.is_running(), "PgBouncer ended: {}", program.output());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listening).await.expect("it listens");
        PgBouncer { program, port }
    }
}

/// `scripts/bootstrap --tests` installs it; Debian has it where no user's `PATH` leads.
fn binary() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut binaries = folders.map(|folder| folder.join("pgbouncer"));
    binaries.find(|path| path.exists()).expect("PgBouncer: scripts/bootstrap --tests installs it")
}

#[tokio::test]
async fn pgbouncer_lets_statements_through_and_replication_or_says_what_it_needs() {
    let server = shared_postgres().await.expect("a PostgreSQL");
    for mode in ["session", "transaction"] {
        let pooler = PgBouncer::start(mode, server.port()).await;
        let url = format!("postgresql://postgres@127.0.0.1:{}/postgres", pooler.port);
        let client = client(&url).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        let row = client.query_one("SELECT 7", &[]).await.expect("answered");
        assert_eq!(row.get::<_, i32>(0), 7);
        match replicates(&url, &quiet()).await {
            // From 1.23 on.
            Ok(()) => println!("{mode}: replicates"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{mode}: {error}");
                let text = error.to_string();
                assert!(text.contains("startup parameter: replication"), "{mode}: {text}");
                assert!(text.contains("PgBouncer 1.23 or later"), "{mode}: {text}");
            }
        }
        assert!(pooler.program.is_running(), "{}", pooler.program.output());
    }
}
