use diesel_async::{AsyncConnection, AsyncPgConnection};
use factlib::{
    ErrorKind,
    emit::{Emitter, Fact},
};
use sqlx::{Connection, PgConnection};

use super::{Database, facts, modes};

/// Emits all but the last fact together and the last alone, in one transaction that is
/// committed, after one that is rolled back.
macro_rules! by {
    ($emitter:expr, $begin:expr, |$tx:ident| $give:expr) => {{
        let facts = facts();
        for commit in [false, true] {
            #[allow(unused_mut)] // sqlx wants it.
            let mut $tx = $begin;
            let (last, first) = facts.split_last().expect("facts");
            $emitter.emit_all($give, first).await.expect("emitted");
            let id = $emitter.emit($give, last).await.expect("emitted");
            assert_eq!(id, last.event_id());
            match commit {
                true => $tx.commit().await.expect("committed"),
                false => $tx.rollback().await.expect("rolled back"),
            }
        }
        facts
    }};
}

/// What was emitted is there, once, as it was given, and nothing else.
async fn arrived(database: &Database, facts: &[Fact], messages: bool, rows: bool) {
    let expected: Vec<_> = facts.iter().map(|fact| fact.to_event().expect("valid")).collect();
    let emitted = database.events("p").await;
    assert_eq!(emitted, if messages { expected.clone() } else { Vec::new() });
    let found = database.rows().await;
    let ids: Vec<&String> = found.iter().map(|(id, ..)| id).collect();
    match rows {
        true => assert_eq!(ids, expected.iter().map(|event| &event.id).collect::<Vec<_>>()),
        false => assert!(ids.is_empty()),
    }
    for ((_, payload, metadata), event) in found.iter().zip(&expected) {
        assert_eq!(payload, &event.payload);
        let metadata: serde_json::Value = serde_json::from_str(metadata).expect("JSON");
        assert_eq!(metadata["k"], "v\"ë");
        assert_eq!(metadata["factlib.span_id"], "00f067aa0ba902b7");
    }
    let exact =
        "SELECT bool_and(created_at = timestamptz 'epoch' + $1::bigint * interval '1 microsecond')
        FROM outbox_events WHERE id = $2::text::uuid";
    if let (true, Some(event)) = (rows, expected.first()) {
        let us = event.created_at / 1_000;
        let row = database.client.query_one(exact, &[&us, &event.id]).await.expect("a row");
        assert!(row.get::<_, bool>(0), "the time is exact to the microsecond");
    }
    database.client.batch_execute("TRUNCATE outbox_events").await.expect("empty again");
}

#[tokio::test]
async fn tokio_postgres_emits_in_every_mode() {
    let database = Database::create("tokio_postgres").await;
    let mut client = factlib::postgres::sql::connect_url(&database.url().await).await.unwrap();
    for (emitter, messages, rows) in modes() {
        let facts = by!(emitter, client.transaction().await.expect("begun"), |tx| &tx);
        arrived(&database, &facts, messages, rows).await;
    }
}

#[tokio::test]
async fn deadpool_emits_in_every_mode() {
    let database = Database::create("deadpool").await;
    let mut config = deadpool_postgres::Config::new();
    config.url = Some(database.url().await);
    let runtime = Some(deadpool_postgres::Runtime::Tokio1);
    let pool = config.create_pool(runtime, tokio_postgres::NoTls).expect("a pool");
    let mut client = pool.get().await.expect("a client");
    for (emitter, messages, rows) in modes() {
        let facts = by!(emitter, client.transaction().await.expect("begun"), |tx| &tx);
        arrived(&database, &facts, messages, rows).await;
    }
}

#[tokio::test]
async fn sqlx_emits_in_every_mode() {
    let database = Database::create("sqlx").await;
    let mut connection = PgConnection::connect(&database.url().await).await.expect("connected");
    for (emitter, messages, rows) in modes() {
        let facts = by!(emitter, connection.begin().await.expect("begun"), |tx| &mut tx);
        arrived(&database, &facts, messages, rows).await;
    }
    let mut tx = connection.begin().await.expect("begun");
    let fact = Fact::new("user", "u", "created");
    let error = Emitter::table("missing").emit(&mut tx, fact).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PostgresRefused);
    assert!(error.to_string().contains("42P01"), "{error}");
}

#[tokio::test]
async fn diesel_emits_in_every_mode_and_only_in_a_transaction() {
    let database = Database::create("diesel").await;
    let mut connection =
        AsyncPgConnection::establish(&database.url().await).await.expect("connected");
    for (emitter, messages, rows) in modes() {
        let facts = facts();
        let emit = async |connection: &mut AsyncPgConnection| {
            let (last, first) = facts.split_last().expect("facts");
            emitter.emit_all(&mut *connection, first).await.expect("emitted");
            emitter.emit(connection, last).await.expect("emitted");
        };
        let undone = connection.transaction(async |connection| {
            emit(connection).await;
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        undone.await.expect_err("rolled back");
        let done = connection.transaction(async |connection| {
            emit(connection).await;
            Ok::<_, diesel::result::Error>(())
        });
        done.await.expect("committed");
        arrived(&database, &facts, messages, rows).await;
    }
    let fact = Fact::new("user", "u", "created");
    let error = Emitter::new("p").emit(&mut connection, fact).await.unwrap_err();
    assert!(error.to_string().contains("in no transaction"), "{error}");
    assert!(database.events("p").await.is_empty());
}

#[tokio::test]
async fn what_could_not_be_delivered_is_refused_at_the_call() {
    let database = Database::create("refused").await;
    let mut client = factlib::postgres::sql::connect_url(&database.url().await).await.unwrap();
    let tx = client.transaction().await.expect("begun");
    let large = Fact::new("user", "u", "created").payload(vec![0; 1_000_001]);
    let odd = Fact::new("user", "a\0b", "created");
    for (emitter, fact, says) in [
        (Emitter::new("p"), &large, "the broker's limit"),
        (Emitter::table("outbox_events").max_bytes(10), &odd, "the broker's limit"),
        (Emitter::table("outbox_events"), &odd, "NUL"),
        (Emitter::new(""), &odd, "prefix"),
    ] {
        let error = emitter.emit(&tx, fact).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFact);
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = Emitter::table("a.b.c").emit(&tx, &odd).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    Emitter::new("p").any_size().emit(&tx, &large).await.expect("emitted");
    tx.commit().await.expect("committed");
    assert_eq!(database.events("p").await.len(), 1);
}
