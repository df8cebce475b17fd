//! Where an operator sits: the real binary, a configuration, a database and a Kafka.

use std::{fs, net::TcpListener, process::Stdio, time::Duration};

use factlib::testing::{shared_kafka, shared_postgres, wait_for_count};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

pub const SOON: Duration = Duration::from_secs(60);

/// A folder with a `factlib.toml`, and a database, slot and prefix of one name.
pub struct Desk {
    pub folder: TempDir,
    pub name: String,
    pub port: u16,
}

pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Desk {
    pub async fn new() -> Self {
        let server = shared_postgres().await.expect("a PostgreSQL");
        let name = server.create_database("operator").await.expect("a database");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = port.local_addr().expect("bound").port();
        let settings = format!(
            "postgres.url = \"{}\"\npostgres.slot = \"{name}\"\npostgres.message_prefix = \"{name}\"\n\
             kafka.brokers = \"{}\"\nhttp.metrics_port = {port}\n",
            server.url_for(&name),
            brokers().await,
        );
        fs::write(folder.path().join("factlib.toml"), settings).expect("written");
        Desk { folder, name, port }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("factlib"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn type_in(&self, line: &str) -> Ended {
        let output = timeout(SOON, self.command(line).output()).await.expect("it ends");
        let output = output.expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub async fn done(&self, line: &str) -> String {
        let ended = self.type_in(line).await;
        assert_eq!(ended.code, Some(0), "{line}: {}{}", ended.out, ended.err);
        ended.out
    }

    /// What it complains of, beside the exit code.
    pub async fn refuses(&self, line: &str, code: i32) -> String {
        let ended = self.type_in(line).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{line}: {}", ended.err);
        ended.err.lines().last().expect("a complaint").to_owned()
    }

    pub async fn relay(&self) -> Child {
        let mut relay = self.command("factlib run").spawn().expect("it starts");
        let mut log = BufReader::new(relay.stderr.take().expect("piped")).lines();
        let running = async {
            while let Some(line) = log.next_line().await.expect("UTF-8") {
                if line.contains("\"relay running\"") {
                    return true;
                }
            }
            false
        };
        assert!(timeout(SOON, running).await.unwrap_or(false), "it does not run");
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        relay
    }

    pub async fn stop(&self, mut relay: Child) {
        let pid = relay.id().expect("it runs").to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(kill.expect("kill runs").success());
        let status = timeout(SOON, relay.wait()).await.expect("it ends").expect("it ran");
        assert_eq!(status.code(), Some(0));
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
