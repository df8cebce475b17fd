//! The roles of packaging/least-privilege.sql: enough to relay and to emit, and no more.

use factlib::{
    postgres::sql::connect_url,
    testing::{PostgresServer, shared_kafka},
};
use tokio_postgres::{Client, error::SqlState};

use crate::{
    launch,
    support::{Bed, Workload, relay::Launch, rows::insert_all},
};

const SCRIPT: &str = include_str!("../../packaging/least-privilege.sql");

async fn session(bed: &Bed<'_>, user: &str) -> Client {
    let url = format!("postgresql://{user}@127.0.0.1:{}/{}", bed.postgres.port(), bed.database);
    connect_url(&url).await.expect("a session")
}

/// Sets up as the administrator, as the script says; `launch` is the relay's.
async fn set_up(bed: &Bed<'_>, source: &str) -> Launch {
    let administrator = launch(bed).set("postgres.source", source);
    let words = ["setup", "--sql-functions", "--outbox-table=public.outbox_events"];
    administrator.command(&words).await;
    let client = bed.client().await;
    client.batch_execute(SCRIPT).await.expect("the script runs");
    let services = "CREATE ROLE app LOGIN; GRANT factlib_emitter TO app; CREATE ROLE other LOGIN;
        CREATE TABLE public.customers (id int); CREATE PUBLICATION others";
    client.batch_execute(services).await.expect("services");
    let url =
        format!("postgresql://factlib_relay@127.0.0.1:{}/{}", bed.postgres.port(), bed.database);
    administrator.set("postgres.url", url).set("postgres.create", "false")
}

async fn denied(client: &Client, who: &str, statements: &[&str]) {
    for statement in statements {
        let error = client.batch_execute(statement).await.expect_err(statement);
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{who}: {statement}: {error}"
        );
    }
}

const OF_NOBODY: [&str; 14] = [
    "SELECT * FROM public.customers",
    "INSERT INTO public.customers VALUES (1)",
    "DROP TABLE public.customers",
    "CREATE TABLE public.mine (id int)",
    "CREATE SCHEMA mine",
    "CREATE TABLE factlib.mine (id int)",
    "DROP TABLE factlib.checkpoints",
    "TRUNCATE factlib.checkpoints",
    "DROP PUBLICATION others",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE ROLE mine SUPERUSER",
    "SELECT pg_read_file('pg_hba.conf')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT * FROM public.outbox_events",
];

const OF_EMITTERS: [&str; 3] = [
    "SELECT pg_logical_emit_message(true, 'factlib', 'x')",
    "SELECT factlib.emit('user', 'u1', 'created', '{}'::jsonb)",
    "INSERT INTO public.outbox_events (id, aggregate_type, aggregate_id, event_type, payload)
     VALUES (gen_random_uuid(), 'user', 'u1', 'created', '')",
];

const OF_THE_RELAY: [&str; 3] = [
    "SELECT * FROM factlib.checkpoints",
    "DELETE FROM factlib.dead_letters",
    "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
];

#[tokio::test]
async fn messages_are_relayed_and_emitted_by_roles_that_can_do_nothing_else() {
    let postgres = PostgresServer::start().await.expect("a PostgreSQL");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, kafka, "least").await;
    let relay = set_up(&bed, "messages").await.start().await;
    let history = Workload::new(&bed.name, 200).emit(&mut session(&bed, "app").await).await;
    bed.delivered(&history).await;
    for (user, statements) in [
        ("factlib_relay", [&OF_NOBODY[..], &OF_EMITTERS].concat()),
        ("app", [&OF_NOBODY[..], &OF_THE_RELAY].concat()),
        ("other", [&OF_NOBODY[..], &OF_EMITTERS, &OF_THE_RELAY].concat()),
    ] {
        denied(&session(&bed, user).await, user, &statements).await;
    }
    // And what is not denied is granted: the same statements, by whom they are meant for.
    let client = session(&bed, "app").await;
    for statement in OF_EMITTERS {
        client.batch_execute(&format!("BEGIN; {statement}; ROLLBACK")).await.expect(statement);
    }
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[tokio::test]
async fn rows_are_relayed_by_a_role_that_cannot_read_their_table() {
    let postgres = PostgresServer::start().await.expect("a PostgreSQL");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = Bed::on(&postgres, kafka, "least").await;
    let relay = set_up(&bed, "tables").await.start().await;
    let mut client = session(&bed, "app").await;
    let history = insert_all(&Workload::new(&bed.name, 200), &mut client).await;
    bed.delivered(&history).await;
    denied(&session(&bed, "factlib_relay").await, "factlib_relay", &OF_NOBODY).await;
    let changes = ["UPDATE public.outbox_events SET id = id", "DELETE FROM public.outbox_events"];
    denied(&session(&bed, "factlib_relay").await, "factlib_relay", &changes).await;
    denied(&client, "app", &changes).await;
    let report = relay.finish(&bed, &history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}
