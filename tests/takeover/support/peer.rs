//! Starts Kafka Connect with any number of connectors, or Debezium Server.

use std::{fs, path::Path, time::Duration};

use factlib::testing::Program;
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{Result, installed, java};

/// Longer than a start takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(180);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Heap and compiler for short runs.
const JVM: [&str; 5] =
    ["-Xms128m", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// A running Debezium. It ends with this value.
pub struct Debezium {
    program: Program,
    folder: TempDir,
}

impl Debezium {
    /// Starts a standalone worker of Kafka Connect with these connectors: names and properties.
    pub fn connect(brokers: &str, connectors: &[(String, String)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("factlib-takeover-").tempdir()?;
        let home = folder.path().display().to_string();
        let worker = format!(
            "bootstrap.servers={brokers}\n\
             key.converter=org.apache.kafka.connect.storage.StringConverter\n\
             value.converter=org.apache.kafka.connect.storage.StringConverter\n\
             offset.storage.file.filename={home}/offsets\n\
             offset.flush.interval.ms=1000\n\
             listeners=http://127.0.0.1:0\n"
        );
        Self::worker(folder, &worker, connectors)
    }

    /// Starts a standalone worker with these properties and connectors, with its files in this folder.
    pub fn worker(
        folder: TempDir,
        properties: &str,
        connectors: &[(String, String)],
    ) -> Result<Self> {
        let mut args = vec![write(folder.path(), "worker.properties", properties)?];
        for (name, properties) in connectors {
            args.push(write(folder.path(), &format!("{name}.properties"), properties)?);
        }
        let (classpath, _) = installed::kafka_connect()?;
        let class = "org.apache.kafka.connect.cli.ConnectStandalone".to_owned();
        let java = java::find(17)?;
        let args = jvm().chain(["-cp".into(), classpath, class]).chain(args).collect::<Vec<_>>();
        Ok(Debezium { program: Program::start(&java.program, &args, &[])?, folder })
    }

    /// Starts Debezium Server with these properties.
    pub fn server(properties: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("factlib-takeover-").tempdir()?;
        let path = write(folder.path(), "application.properties", properties)?;
        let (classpath, _) = installed::debezium_server()?;
        let java = java::find(21)?;
        let open = "--add-opens=java.base/java.lang=ALL-UNNAMED".to_owned();
        let locations = format!("-Dquarkus.config.locations={path}");
        let class = "io.debezium.server.Main".to_owned();
        let args = jvm().chain([open, locations, "-cp".into(), classpath, class]);
        let args: Vec<String> = args.collect();
        Ok(Debezium { program: Program::start(&java.program, &args, &[])?, folder })
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Waits until it reads all these slots.
    pub async fn reads(&self, sql: &Client, slots: &[String]) -> Result<()> {
        let query =
            "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name = ANY($1)";
        let reads = async {
            loop {
                let active: i64 = sql.query_one(query, &[&slots]).await?.get(0);
                if active == slots.len() as i64 {
                    return Ok(());
                }
                if !self.program.is_running() {
                    return Err("it ended".into());
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let done: Result<()> = match tokio::time::timeout(START_LIMIT, reads).await {
            Ok(done) => done,
            Err(_) => Err("it does not read its slots".into()),
        };
        done.map_err(|error| format!("{error}: {}", self.complaints()).into())
    }

    /// The last lines that say what went wrong.
    pub fn complaints(&self) -> String {
        let output = self.program.output();
        let lines = output.lines().filter(|line| {
            ["ERROR", "WARN", "Caused by", "Exception"].iter().any(|word| line.contains(word))
        });
        let lines: Vec<&str> = lines.collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn jvm() -> impl Iterator<Item = String> {
    JVM.into_iter().map(str::to_owned)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}
