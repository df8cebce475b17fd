//! The relays that are compared: how each is installed, set up and started.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    installed,
    java::{self, Java},
    servers::MESSAGES_PUBLICATION,
};
use crate::support::{
    Result,
    servers::{NAME, Servers},
};

/// Where a relay's events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Rows of the table `outbox`.
    Table,
    /// Logical messages.
    Messages,
}

impl Source {
    pub const ALL: [Source; 2] = [Source::Table, Source::Messages];
}

/// A relay, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    Factlib,
    FactlibExactlyOnce,
    FactlibMessages,
    DebeziumServer,
    KafkaConnect,
}

impl Peer {
    pub const ALL: [Peer; 5] = [
        Peer::Factlib,
        Peer::DebeziumServer,
        Peer::KafkaConnect,
        Peer::FactlibExactlyOnce,
        Peer::FactlibMessages,
    ];

    /// Returns the peer of a name in PEERS.
    pub fn named(name: &str) -> Result<Self> {
        let name = name.trim();
        Peer::from_str(name, false).map_err(|_| {
            let all = Peer::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let all: Vec<String> = all.map(|value| value.get_name().to_owned()).collect();
            format!("PEERS: {name:?} is none of {}", all.join(", ")).into()
        })
    }

    /// Returns the name in the tables.
    pub fn label(self) -> &'static str {
        match self {
            Peer::Factlib => "factlib",
            Peer::FactlibExactlyOnce => "factlib, exactly once",
            Peer::FactlibMessages => "factlib, messages",
            Peer::DebeziumServer => "Debezium Server",
            Peer::KafkaConnect => "Kafka Connect with Debezium",
        }
    }

    pub fn source(self) -> Source {
        match self {
            Peer::FactlibMessages => Source::Messages,
            _ => Source::Table,
        }
    }

    /// Returns true if its transactions add records of their own to the topics.
    pub fn is_transactional(self) -> bool {
        self == Peer::FactlibExactlyOnce
    }

    /// Returns its settings: names of the files, and texts with places to fill in.
    pub fn settings(self) -> Vec<(&'static str, &'static str)> {
        macro_rules! file {
            ($name:literal) => {
                ($name, include_str!(concat!("../settings/", $name)))
            };
        }
        match self {
            Peer::Factlib => vec![file!("factlib.toml")],
            Peer::FactlibExactlyOnce => vec![file!("factlib-exactly-once.toml")],
            Peer::FactlibMessages => vec![file!("factlib-messages.toml")],
            Peer::DebeziumServer => vec![file!("debezium-server.properties")],
            Peer::KafkaConnect => {
                vec![file!("connect-worker.properties"), file!("connect-connector.properties")]
            }
        }
    }
}

/// Options of both peers' JVM: Kafka's own scripts have these for Connect, but for the heap, of which
/// half of a gigabyte is as fast as more.
pub const JVM: &[&str] = &[
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// A relay that is on this machine.
#[derive(Clone, Debug)]
pub struct Installation {
    pub peer: Peer,
    pub version: String,
    program: Program,
}

#[derive(Clone, Debug)]
enum Program {
    Factlib,
    Jars { java: Java, classpath: String },
}

impl Installation {
    /// Finds it: factlib as it was built with this benchmark, a peer in the cache.
    pub fn find(peer: Peer) -> Result<Self> {
        match peer {
            Peer::DebeziumServer => {
                let (classpath, version) = installed::debezium_server()?;
                Self::of_jars(peer, version, java::find(21)?, classpath)
            }
            Peer::KafkaConnect => {
                let (classpath, version) = installed::kafka_connect()?;
                Self::of_jars(peer, version, java::find(17)?, classpath)
            }
            _ => {
                let mut version = env!("CARGO_PKG_VERSION").to_owned();
                if cfg!(debug_assertions) {
                    version += " (UNOPTIMISED)";
                }
                Ok(Installation { peer, version, program: Program::Factlib })
            }
        }
    }

    fn of_jars(peer: Peer, version: String, java: Java, classpath: String) -> Result<Self> {
        let version = format!("{version}, Java {}", java.version);
        Ok(Installation { peer, version, program: Program::Jars { java, classpath } })
    }

    /// Writes the settings into the folder, and returns the program with its arguments.
    pub fn command(
        &self,
        servers: &Servers,
        slot: &str,
        brokers: &str,
        folder: &Path,
    ) -> Result<(PathBuf, Vec<String>)> {
        let publication = match self.peer.source() {
            Source::Table => NAME,
            Source::Messages => MESSAGES_PUBLICATION,
        };
        let (port, folder_name) =
            (servers.postgres.port().to_string(), folder.display().to_string());
        let values = [
            ("{{postgres_url}}", servers.url()),
            ("{{postgres_port}}", port),
            ("{{database}}", NAME.to_owned()),
            ("{{publication}}", publication.to_owned()),
            ("{{slot}}", slot.to_owned()),
            ("{{brokers}}", brokers.to_owned()),
            // The topics of a run are named for its slot.
            ("{{topics}}", slot.to_owned()),
            ("{{folder}}", folder_name),
        ];
        let mut files = Vec::new();
        for (name, text) in self.peer.settings() {
            let fill = |text: String, (place, value): &(&str, String)| text.replace(place, value);
            let path = folder.join(name);
            fs::write(&path, values.iter().fold(text.to_owned(), fill))?;
            files.push(path.display().to_string());
        }
        Ok(match &self.program {
            Program::Factlib => {
                let args = ["run", "--log-level", "warn", "--config"].map(str::to_owned);
                (env!("CARGO_BIN_EXE_factlib").into(), args.into_iter().chain(files).collect())
            }
            Program::Jars { java, classpath } => {
                let mut args: Vec<String> = JVM.iter().map(ToString::to_string).collect();
                if self.peer == Peer::DebeziumServer {
                    // Its own jar asks for this, where it is started by it.
                    args.push("--add-opens=java.base/java.lang=ALL-UNNAMED".into());
                    args.push(format!("-Dquarkus.config.locations={}", files.concat()));
                    args.extend([
                        "-cp".into(),
                        classpath.clone(),
                        "io.debezium.server.Main".into(),
                    ]);
                } else {
                    let class = "org.apache.kafka.connect.cli.ConnectStandalone";
                    args.extend(["-cp".into(), classpath.clone(), class.into()]);
                    args.extend(files);
                }
                (java.program.clone(), args)
            }
        })
    }
}
