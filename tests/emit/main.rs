//! The client on a real server: every driver in every mode, and the same facts from SQL.

#[path = "../support/mod.rs"]
mod support;

mod drivers;
mod example;
mod functions;
mod languages;
mod no_transaction;
mod publisher;
mod readme;
mod receipt;
mod relay;
mod setup;

use factlib::{
    emit::{Emitter, Fact, schema},
    proto::OutboxEvent,
    testing::shared_postgres,
};
use prost::Message;
use tokio_postgres::Client;

/// A database of a test's own, with an outbox table, the functions and a slot to look
/// into the WAL by.
struct Database {
    name: String,
    client: Client,
}

impl Database {
    async fn create(name: &str) -> Self {
        let server = shared_postgres().await.expect("PostgreSQL starts");
        let name = server.create_database(name).await.expect("a database");
        let client = server.connect(&name).await.expect("a session");
        let table = schema::outbox_table("public.outbox_events").expect("a name");
        client.batch_execute(&table).await.expect("the table");
        client.batch_execute(schema::FUNCTIONS).await.expect("the functions");
        let slot = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        client.execute(slot, &[&name]).await.expect("a slot");
        let publication = format!("CREATE PUBLICATION {name}");
        client.batch_execute(&publication).await.expect("a publication");
        Database { name, client }
    }

    async fn url(&self) -> String {
        shared_postgres().await.expect("it runs").url_for(&self.name)
    }

    /// The committed messages under a prefix since the last call.
    async fn messages(&self, prefix: &str) -> Vec<Vec<u8>> {
        let query =
            "SELECT data FROM pg_logical_slot_get_binary_changes($1::text::name, NULL, NULL,
            'proto_version', '1', 'publication_names', $2::text, 'messages', 'true')";
        let rows = self.client.query(query, &[&self.name, &self.name]).await.expect("changes");
        let head = [prefix.as_bytes(), b"\0"].concat();
        let message = |data: &[u8]| {
            // Kind, flags, position, prefix, length, content.
            let rest = data.strip_prefix(b"M")?.get(9..)?.strip_prefix(&head[..])?;
            Some(rest.get(4..)?.to_vec())
        };
        rows.iter().filter_map(|row| message(row.get(0))).collect()
    }

    async fn events(&self, prefix: &str) -> Vec<OutboxEvent> {
        let messages = self.messages(prefix).await;
        messages.iter().map(|m| OutboxEvent::decode(&m[..]).expect("an event")).collect()
    }

    /// Id, payload and metadata of the rows, in their order.
    async fn rows(&self) -> Vec<(String, Vec<u8>, String)> {
        let query = "SELECT id::text, payload, metadata::text FROM outbox_events ORDER BY id";
        let rows = self.client.query(query, &[]).await.expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }
}

/// The modes, and whether they make messages and rows.
fn modes() -> [(Emitter, bool, bool); 3] {
    [
        (Emitter::new("p"), true, false),
        (Emitter::table("public.outbox_events"), false, true),
        (Emitter::archive("p", "outbox_events"), true, true),
    ]
}

fn facts() -> Vec<Fact> {
    let fact = |n: u8| {
        let fact = Fact::new("user", format!("ü{n}'\"\\"), "created").payload(vec![n, 0, 255]);
        fact.metadata("k", "v\"ë").trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    };
    (0..3).map(fact).collect()
}
