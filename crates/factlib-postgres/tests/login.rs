//! Logs in by each method, over both kinds of connection.

use std::time::Duration;

use factlib_postgres::{ConnectInfo, ErrorKind, ReplicationClient, SqlSession};
use factlib_testing::{PostgresServer, SelfSigned};

/// Logs in once with each kind of connection, and returns both results.
async fn outcomes(text: &str) -> [Result<(), ErrorKind>; 2] {
    let info = ConnectInfo::parse(text).unwrap();
    let limit = Duration::from_secs(10);
    let ours = ReplicationClient::connect(&info, limit).await.map(drop);
    let theirs = SqlSession::connect(&info, limit).await.map(drop);
    [ours, theirs].map(|result| {
        result.map_err(|error| {
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            error.kind()
        })
    })
}

#[tokio::test]
async fn a_replication_connection_is_let_in_where_an_ordinary_one_is() {
    let tls = SelfSigned::new("db.example").unwrap();
    let mut builder = PostgresServer::builder().ssl(tls.certificate, tls.key);
    for (role, method) in [("scram", "scram-sha-256"), ("md5", "md5"), ("clear", "password")] {
        builder = builder.hba(format!("host all {role} all {method}"));
    }
    let server = builder.start().await.unwrap();
    for (role, stored) in [("scram", "scram-sha-256"), ("md5", "md5"), ("clear", "md5")] {
        let create = format!(
            "SET password_encryption = '{stored}'; CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'hunter2'"
        );
        server.execute("postgres", &create).await.unwrap();
    }
    let (refused, port) = (Err(ErrorKind::Authentication), server.port());
    for role in ["scram", "md5", "clear", "postgres"] {
        for tls in ["disable", "require"] {
            let url = |more: &str| {
                format!(
                    "host=127.0.0.1 port={port} dbname=postgres user={role} sslmode={tls} \
                     passfile=/nowhere {more}"
                )
            };
            assert_eq!(outcomes(&url("password=hunter2")).await, [Ok(()); 2], "{role} {tls}");
            // The superuser is trusted: nobody asks for its password.
            let expected = if role == "postgres" { Ok(()) } else { refused };
            assert_eq!(outcomes(&url("password=hunter22")).await, [expected; 2], "{role} {tls}");
            // The password file that is named may come late.
            let late = expected.map_err(|_| ErrorKind::Unavailable);
            assert_eq!(outcomes(&url("")).await, [late; 2], "{role} {tls}");
            let bound = if role == "scram" && tls == "require" { Ok(()) } else { refused };
            let url = url("password=hunter2 channel_binding=require");
            assert_eq!(outcomes(&url).await, [bound; 2], "{role} {tls}");
        }
    }
}
