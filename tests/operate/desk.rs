//! Where an operator sits: the real binary, a configuration, a database and a Kafka.

use std::net::TcpListener;

use factlib::testing::{shared_kafka, shared_postgres, wait_for_count};

use crate::support::terminal::{Folder, SOON};

/// A folder with a `factlib.toml`, and a database, slot and prefix of one name.
pub struct Desk {
    pub folder: Folder,
    pub name: String,
    pub port: u16,
}

impl Desk {
    pub async fn new() -> Self {
        let server = shared_postgres().await.expect("a PostgreSQL");
        let name = server.create_database("operator").await.expect("a database");
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = port.local_addr().expect("bound").port();
        let settings = format!(
            "postgres.url = \"{}\"\npostgres.slot = \"{name}\"\npostgres.message_prefix = \"{name}\"\n\
             kafka.brokers = \"{}\"\nhttp.metrics_port = {port}\nhttp.health_port = {port}\n",
            server.url_for(&name),
            brokers().await,
        );
        let folder = Folder::new(&settings);
        Desk { folder, name, port }
    }

    pub async fn done(&self, line: &str) -> String {
        let ended = self.folder.type_in(line).await;
        assert_eq!(ended.code, Some(0), "{line}: {}{}", ended.out, ended.err);
        ended.out
    }

    /// What it complains of, beside the exit code.
    pub async fn refuses(&self, line: &str, code: i32) -> String {
        let ended = self.folder.type_in(line).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{line}: {}", ended.err);
        ended.err.lines().last().expect("a complaint").to_owned()
    }

    pub async fn emit(&self, arrived: usize) {
        let fact = "--aggregate-type user --aggregate-id u1 --event-type created";
        self.done(&format!("factlib emit {fact}")).await;
        let topic = format!("{}.user", self.name);
        wait_for_count(&brokers().await, &[&topic], arrived, SOON).await.expect("it arrives");
    }

    pub async fn execute(&self, statement: &str) {
        let server = shared_postgres().await.expect("a PostgreSQL");
        server.execute(&self.name, statement).await.expect("PostgreSQL takes it");
    }
}

pub async fn brokers() -> String {
    shared_kafka().await.expect("a Kafka").bootstrap()
}

/// The value of a line of a table.
pub fn value<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no line {name} in: {table}"));
    line[name.len()..].trim()
}
