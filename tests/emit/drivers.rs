use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use factlib::emit::{Emitter, ErrorKind, Fact};
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

/// The table that is missing, by each driver.
const MISSING: &str = "factlib setup --outbox-table=sales.outbox";

#[tokio::test]
async fn a_table_that_is_missing_names_the_command_that_makes_it() {
    let database = Database::create("missing").await;
    let url = database.url().await;
    let (emitter, fact) = (Emitter::table("sales.outbox"), Fact::new("user", "u", "created"));
    // Those of the client become the relay's.
    let mut errors: Vec<(_, factlib::Error)> = Vec::new();

    let mut client = factlib::postgres::sql::connect_url(&url).await.unwrap();
    let tx = client.transaction().await.expect("begun");
    errors.push(("tokio-postgres", emitter.emit(&tx, &fact).await.unwrap_err().into()));

    let mut connection = PgConnection::connect(&url).await.expect("connected");
    let mut tx = connection.begin().await.expect("begun");
    errors.push(("sqlx", emitter.emit(&mut tx, &fact).await.unwrap_err().into()));

    let mut connection = AsyncPgConnection::establish(&url).await.expect("connected");
    let mut said = None;
    let undone = connection.transaction(async |connection| {
        said = emitter.emit(connection, &fact).await.err();
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    undone.await.expect_err("rolled back");
    errors.push(("diesel-async", said.expect("refused").into()));

    let publisher = factlib::emit::Publisher::new(&url).expect("a URL").emitter(emitter.clone());
    errors.push(("publisher", publisher.publish(&fact).await.unwrap_err()));
    for (driver, error) in errors {
        assert_eq!(error.kind(), factlib::ErrorKind::PostgresRefused, "{driver}");
        let advice = error.advice().unwrap_or_default();
        assert!(advice.contains(MISSING), "{driver}: {error}");
    }
}

#[tokio::test]
async fn a_type_that_can_end_no_topics_name_is_refused_at_the_call_and_by_sql() {
    let database = Database::create("types").await;
    let mut client = factlib::postgres::sql::connect_url(&database.url().await).await.unwrap();
    let (long, longest) = ("t".repeat(248), "t".repeat(247));
    for kind in ["a b", "a/b", "ü", "handler:a", &long] {
        let tx = client.transaction().await.expect("begun");
        let error = Emitter::new("p").emit(&tx, Fact::new(kind, "u", "created")).await;
        let error = error.expect_err(kind);
        assert_eq!(error.kind(), ErrorKind::InvalidFact, "{kind}");
        assert!(error.to_string().contains("makes no topic name"), "{error}");
        let emit = "SELECT factlib.emit($1, 'u', 'created', 'x'::text, prefix => 'p')::text";
        let error = tx.query(emit, &[&kind]).await.expect_err(kind);
        let said = error.as_db_error().expect("of the server").message().to_owned();
        assert!(said.contains("makes no topic name"), "{said}");
    }
    let mut tx = client.transaction().await.expect("begun");
    for kind in [".", "A-z_0.9", &longest] {
        Emitter::new("p").emit(&tx, Fact::new(kind, "u", "created")).await.expect(kind);
        // As sqlx has it.
        Emitter::new("p").emit(&mut tx, Fact::new(kind, "u", "created")).await.expect(kind);
    }
}

#[tokio::test]
async fn what_the_server_refuses_of_the_table_has_a_remedy() {
    let database = Database::create("refuses").await;
    let role = format!("stranger_{}", database.name);
    let script = format!("CREATE TABLE notes (id int); CREATE ROLE {role}");
    database.client.batch_execute(&script).await.expect("made");
    let mut client = factlib::postgres::sql::connect_url(&database.url().await).await.unwrap();
    for (role, table, remedy) in [
        (
            None,
            "notes",
            "notes lacks columns of an outbox table: `factlib setup --outbox-table=notes",
        ),
        (
            Some(&role),
            "outbox_events",
            "grant the user USAGE on the schema of outbox_events and INSERT on it",
        ),
    ] {
        let tx = client.transaction().await.expect("begun");
        if let Some(role) = role {
            tx.batch_execute(&format!("SET LOCAL ROLE {role}")).await.expect("set");
        }
        let fact = Fact::new("user", "u", "created");
        let error = Emitter::table(table).emit(&tx, &fact).await.unwrap_err();

        // Diesel gives no SQLSTATE.
        let mut connection =
            AsyncPgConnection::establish(&database.url().await).await.expect("connected");
        let mut said = None;
        let undone = connection.transaction(async |connection| {
            if let Some(role) = role {
                connection.batch_execute(&format!("SET LOCAL ROLE {role}")).await?;
            }
            said = Emitter::table(table).emit(connection, &fact).await.err();
            Err::<(), _>(diesel::result::Error::RollbackTransaction)
        });
        undone.await.expect_err("rolled back");
        for error in [error, said.expect("refused")] {
            assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
            assert!(error.advice().is_some_and(|advice| advice.contains(remedy)), "{error}");
        }
    }
}
