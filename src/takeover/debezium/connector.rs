//! The configuration of a connector, with typed access.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::config_file::{self, FileContent};
use crate::{Error, ErrorKind, Result};

/// The program that runs the connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runtime {
    /// A worker of Kafka Connect.
    KafkaConnect,
    /// Debezium Server.
    DebeziumServer,
}

/// One setting of a file.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value; it may be a secret.
    pub value: String,
    /// The key, as the file has it.
    pub original: String,
    /// The line in the file; 0 if it is not known.
    pub line: usize,
}

/// The place where Debezium keeps its position.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetStorage {
    /// A file, in the format of Kafka Connect's standalone mode.
    File(PathBuf),
    /// A topic of Kafka.
    Topic(String),
    /// Another place, by its class.
    Other(String),
    /// Not in the files that were read: that of the worker names it.
    Unknown,
}

/// The connection to PostgreSQL.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Database {
    /// Host, or several of them.
    pub host: Option<String>,
    /// Port; 5432 if not set.
    pub port: u16,
    /// User.
    pub user: Option<String>,
    /// Password; none if it is not set, or a reference such as `${env:PASSWORD}`.
    pub password: Option<SecretString>,
    /// Name of the database.
    pub name: Option<String>,
}

/// The configuration of a connector. Its keys are those of Kafka Connect; those of Debezium Server
/// are translated.
#[derive(Clone, Debug)]
pub struct ConnectorConfig {
    path: PathBuf,
    runtime: Runtime,
    name: Option<String>,
    entries: BTreeMap<String, Entry>,
    /// Settings of Kafka Connect's worker.
    worker: BTreeMap<String, Entry>,
}

impl ConnectorConfig {
    /// Reads a connector's configuration: a JSON file as Kafka Connect's REST API takes it, a
    /// `.properties` file of its standalone mode, or Debezium Server's `application.properties`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the file can't be read, or is not the configuration of Debezium's
    /// connector for PostgreSQL.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?, path)
    }

    /// Does the same for the text of a file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let content = config_file::parse(text).map_err(|why| unreadable(path, why))?;
        let FileContent { runtime, name, entries } = content;
        let path = path.to_owned();
        let config = ConnectorConfig { path, runtime, name, entries, worker: BTreeMap::new() };
        let class = config.get("connector.class").unwrap_or_default();
        if !class.ends_with("PostgresConnector") {
            let what = match class {
                "" => format!("{} has no connector.class", config.path.display()),
                _ => format!("{} configures {class}", config.path.display()),
            };
            let remedy =
                "factlib takes over from io.debezium.connector.postgresql.PostgresConnector";
            return Err(Error::new(ErrorKind::Config, what).remedy(remedy));
        }
        Ok(config)
    }

    /// Reads the settings of Kafka Connect's worker, which the connector's own override.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the file can't be read.
    pub fn with_worker(mut self, path: &Path) -> Result<Self> {
        let content = config_file::parse(&read_text(path)?).map_err(|why| unreadable(path, why))?;
        self.worker = content.entries;
        Ok(self)
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program that runs the connector.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// All settings of the connector, by Kafka Connect's keys.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The setting of a key in the connector's own file.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The value of a key; none if it is not set or empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        let value = self.entries.get(key).map(|entry| entry.value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// The value of a key in the connector's settings, or else in the worker's.
    pub fn get_or_worker(&self, key: &str) -> Option<&str> {
        self.get(key).or_else(|| self.of_worker(key))
    }

    fn of_worker(&self, key: &str) -> Option<&str> {
        let value = self.worker.get(key).map(|entry| entry.value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// The value of a converter's option. Kafka Connect takes the options from the file that names
    /// the converter, and ignores those of the other one.
    pub(super) fn converter_option(&self, converter: &str, option: &str) -> Option<&str> {
        let key = format!("{converter}.{option}");
        match self.get(converter).is_none() && self.of_worker(converter).is_some() {
            true => self.of_worker(&key),
            false => self.get(&key),
        }
    }

    /// The name of the connector, which is a part of its key in the topic of offsets. That of
    /// Debezium Server is `kafka`, unless it is set.
    pub fn connector_name(&self) -> &str {
        let default = match self.runtime {
            Runtime::DebeziumServer => "kafka",
            Runtime::KafkaConnect => "",
        };
        self.name.as_deref().or_else(|| self.get("name")).unwrap_or(default)
    }

    /// The logical name of the server, also a part of that key; `database.server.name` before
    /// Debezium 2.0.
    pub fn topic_prefix(&self) -> Option<&str> {
        self.get("topic.prefix").or_else(|| self.get("database.server.name"))
    }

    /// The connection to PostgreSQL.
    pub fn database(&self) -> Database {
        let text = |key: &str| self.get(key).map(str::to_owned);
        let password = self.get("database.password").filter(|password| !is_reference(password));
        Database {
            host: text("database.hostname"),
            port: self.get("database.port").and_then(|port| port.parse().ok()).unwrap_or(5432),
            user: text("database.user"),
            password: password.map(|password| password.to_owned().into()),
            name: text("database.dbname"),
        }
    }

    /// The name of the replication slot.
    pub fn slot_name(&self) -> &str {
        self.get("slot.name").unwrap_or("debezium")
    }

    /// The output plugin of the slot.
    pub fn plugin_name(&self) -> &str {
        self.get("plugin.name").unwrap_or("decoderbufs")
    }

    /// The name of the publication.
    pub fn publication_name(&self) -> &str {
        self.get("publication.name").unwrap_or("dbz_publication")
    }

    /// The place of Debezium's position.
    pub fn offset_storage(&self) -> OffsetStorage {
        let class = self.get_or_worker("offset.storage").unwrap_or_default();
        let file = self.get_or_worker("offset.storage.file.filename");
        let topic = self.get_or_worker("offset.storage.topic");
        match (class.rsplit('.').next().unwrap_or_default(), file, topic) {
            ("" | "FileOffsetBackingStore", Some(file), _) => OffsetStorage::File(file.into()),
            ("" | "KafkaOffsetBackingStore", _, Some(topic)) => OffsetStorage::Topic(topic.into()),
            ("" | "FileOffsetBackingStore" | "KafkaOffsetBackingStore", ..) => {
                OffsetStorage::Unknown
            }
            _ => OffsetStorage::Other(class.to_owned()),
        }
    }

    /// The brokers of the topics; empty if only the worker's file, which was not read, has them.
    pub fn bootstrap_servers(&self) -> Vec<String> {
        let keys = ["producer.override.bootstrap.servers", "bootstrap.servers"];
        let servers = keys.into_iter().find_map(|key| self.get_or_worker(key)).unwrap_or_default();
        let servers = servers.split(',').map(str::trim).filter(|server| !server.is_empty());
        servers.map(str::to_owned).collect()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be a secret.
        f.debug_struct("Entry")
            .field("original", &self.original)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// Returns true for a value that another place supplies, such as `${file:/secrets:password}`.
pub(super) fn is_reference(value: &str) -> bool {
    value.starts_with("${") && value.ends_with('}')
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot read {}", path.display());
        Error::new(ErrorKind::Config, what).caused_by(error)
    })
}

fn unreadable(path: &Path, why: String) -> Error {
    let what = format!("{} is not a connector's configuration: {why}", path.display());
    let remedy = "expected connector.json, or Debezium Server's application.properties";
    Error::new(ErrorKind::Config, what).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConnectorConfig> {
        ConnectorConfig::parse(text, Path::new("c"))
    }

    const CLASS: &str = "io.debezium.connector.postgresql.PostgresConnector";

    #[test]
    fn both_shapes_of_json_are_read() {
        let inner = format!(
            "{{\n \"connector.class\": {CLASS:?},\n \"database.port\": 5433,\n \"topic.prefix\": \"shop\"}}"
        );
        let flat = parse(&inner).expect("flat");
        let nested =
            parse(&format!("{{\"name\": \"outbox\", \"config\": {inner}}}")).expect("nested");
        for (config, name) in [(&flat, ""), (&nested, "outbox")] {
            assert_eq!((config.connector_name(), config.database().port), (name, 5433));
            assert_eq!(config.topic_prefix(), Some("shop"));
            assert_eq!(
                config
                    .entries()
                    .find(|(key, _)| *key == "topic.prefix")
                    .map(|(_, entry)| entry.line),
                Some(4)
            );
            let defaults = (config.slot_name(), config.plugin_name(), config.publication_name());
            assert_eq!(defaults, ("debezium", "decoderbufs", "dbz_publication"));
            assert_eq!(config.offset_storage(), OffsetStorage::Unknown);
        }
    }

    #[test]
    fn debezium_servers_properties_are_read() {
        let text = format!(
            "debezium.source.connector.class={CLASS}\n\
             debezium.source.database.server.name=old\n\
             debezium.source.database.password=${{PGPASSWORD}}\n\
             debezium.source.offset.storage.file.filename=data/offsets.dat\n\
             debezium.sink.kafka.producer.bootstrap.servers=k1:9092, k2:9092\n"
        );
        let config = parse(&text).expect("properties");
        assert_eq!((config.runtime(), config.connector_name()), (Runtime::DebeziumServer, "kafka"));
        assert_eq!(config.topic_prefix(), Some("old"));
        assert!(config.database().password.is_none());
        assert_eq!(config.offset_storage(), OffsetStorage::File("data/offsets.dat".into()));
        assert_eq!(config.bootstrap_servers(), ["k1:9092", "k2:9092"]);
    }

    #[test]
    fn the_workers_file_has_what_the_connector_lacks() {
        let folder = tempfile::tempdir().expect("a folder");
        let worker = folder.path().join("worker.properties");
        std::fs::write(&worker, "bootstrap.servers=k:9092\noffset.storage.topic=offsets\n")
            .expect("written");
        let config = parse(&format!("name=o\nconnector.class={CLASS}")).expect("properties");
        let config = config.with_worker(&worker).expect("a worker's file");
        assert_eq!(
            (config.connector_name(), config.bootstrap_servers()),
            ("o", vec!["k:9092".to_owned()])
        );
        assert_eq!(config.offset_storage(), OffsetStorage::Topic("offsets".into()));
    }

    #[test]
    fn another_file_is_refused_with_a_sentence() {
        for (text, said) in [
            ("{", "c is not a connector's configuration: "),
            ("# nothing", "c is not a connector's configuration: it has no property"),
            ("{\"config\": 7}", "its \"config\" is not an object"),
            ("{\"config\": {\"a\": []}}", "its \"a\" is not a text"),
            (
                "a=b",
                "c has no connector.class (factlib takes over from \
                 io.debezium.connector.postgresql.PostgresConnector)",
            ),
            ("{", "(expected connector.json, or Debezium Server's application.properties)"),
            ("connector.class=MySqlConnector", "c configures MySqlConnector"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
        }
        let error = ConnectorConfig::read(Path::new("/none/connector.json")).expect_err("no file");
        assert!(error.to_string().starts_with("cannot read /none/connector.json: "), "{error}");
    }

    #[test]
    fn no_value_is_in_the_debug_text() {
        let text = format!("connector.class={CLASS}\ndatabase.password=secret");
        assert!(!format!("{:?}", parse(&text).expect("properties")).contains("secret"));
    }
}
