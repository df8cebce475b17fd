//! Shapes: a table, a connector's options, and rows.

use std::path::Path;

use factlib::{
    binary::Loader,
    config::Config,
    takeover::debezium::{ConfigMapping, ConnectorConfig, KnownDifference},
};
use tokio_postgres::Client;

use super::Result;

/// A configuration of the router and its converters, and data for it.
pub struct Shape {
    pub name: &'static str,
    /// Type of the payload's column.
    pub payload: &'static str,
    /// Additional columns.
    pub columns: &'static str,
    /// Options of the router, one per line.
    pub router: &'static str,
    /// Other properties of the connector, one per line.
    pub connector: &'static str,
    /// Names of the columns of the rows behind id, aggregatetype, aggregateid, type.
    pub inserted: &'static str,
    /// Values of a row: those four but the id, and those of `inserted`.
    pub rows: &'static [&'static str],
    /// Differences that are allowed.
    pub known: &'static [KnownDifference],
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            name: "",
            payload: "jsonb",
            columns: "",
            router: "",
            connector: "",
            inserted: "payload",
            rows: &[],
            known: &[],
        }
    }
}

/// The place of the servers.
pub struct Place {
    pub postgres_port: u16,
    pub database: String,
    pub brokers: String,
}

impl Shape {
    /// Creates the table, its publication and its slot.
    pub async fn create(&self, sql: &Client) -> Result<()> {
        let Shape { name, payload, columns, .. } = self;
        sql.batch_execute(&format!(
            "CREATE TABLE {name} (id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL,
                 aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload {payload}
                 {columns});
             CREATE PUBLICATION {name} FOR TABLE {name}"
        ))
        .await?;
        let slot = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
        sql.query_one(slot, &[&self.name]).await?;
        Ok(())
    }

    /// Properties of the connector, as Kafka Connect takes them.
    pub fn properties(&self, place: &Place) -> String {
        let Shape { name, router, connector, .. } = self;
        let Place { postgres_port, database, .. } = place;
        let router: String =
            router.lines().map(|line| format!("transforms.outbox.{}\n", line.trim())).collect();
        let replacement = match router.contains("route.topic.replacement") {
            true => String::new(),
            false => {
                format!("transforms.outbox.route.topic.replacement={name}.${{routedByValue}}\n")
            }
        };
        let context = match connector.contains("extended.headers.enabled") {
            true => "",
            false => "extended.headers.enabled=false\n",
        };
        let connector: String =
            connector.lines().map(|line| format!("{}\n", line.trim())).collect();
        format!(
            "name={name}\n\
             connector.class=io.debezium.connector.postgresql.PostgresConnector\n\
             tasks.max=1\n\
             database.hostname=127.0.0.1\n\
             database.port={postgres_port}\n\
             database.user=postgres\n\
             database.password=unused\n\
             database.dbname={database}\n\
             topic.prefix={name}\n\
             table.include.list=public\\\\.{name}\n\
             plugin.name=pgoutput\n\
             slot.name={name}\n\
             publication.name={name}\n\
             publication.autocreate.mode=disabled\n\
             snapshot.mode=no_data\n\
             poll.interval.ms=20\n\
             tombstones.on.delete=false\n\
             topic.creation.default.partitions=3\n\
             topic.creation.default.replication.factor=1\n\
             transforms=outbox\n\
             transforms.outbox.type=io.debezium.transforms.outbox.EventRouter\n\
             {replacement}{router}{connector}{context}"
        )
    }

    /// The same properties as Debezium Server takes them; its producer sends text.
    pub fn server_properties(&self, place: &Place, folder: &Path) -> String {
        let connect = self.properties(place);
        let lines = connect.lines().filter(|line| !line.starts_with("name="));
        let lines = lines.map(|line| match line.split_once('.') {
            Some(("transforms", _)) => format!("debezium.{}\n", line.replace("${", "\\\\${")),
            _ if line.starts_with("transforms=") => format!("debezium.{line}\n"),
            Some(("key" | "value" | "header", _)) => String::new(),
            _ => format!("debezium.source.{line}\n"),
        });
        let serializer = "org.apache.kafka.common.serialization.StringSerializer";
        format!(
            "{}\
             debezium.source.offset.storage.file.filename={}/offsets.dat\n\
             debezium.source.offset.flush.interval.ms=0\n\
             debezium.format.key=simplestring\n\
             debezium.format.value=simplestring\n\
             debezium.format.header=json\n\
             debezium.format.header.schemas.enable=false\n\
             debezium.sink.type=kafka\n\
             debezium.sink.kafka.producer.bootstrap.servers={}\n\
             debezium.sink.kafka.producer.key.serializer={serializer}\n\
             debezium.sink.kafka.producer.value.serializer={serializer}\n\
             quarkus.http.host=127.0.0.1\n\
             quarkus.http.port=0\n\
             quarkus.log.level=WARN\n",
            lines.collect::<String>(),
            folder.display(),
            place.brokers
        )
    }

    /// Factlib's configuration, mapped from those properties and Kafka Connect's worker.
    pub fn config(&self, properties: &str, brokers: &str) -> Result<Config> {
        let folder = tempfile::tempdir()?;
        let worker = folder.path().join("worker.properties");
        let class = "org.apache.kafka.connect.storage.StringConverter";
        let text = format!(
            "bootstrap.servers={brokers}\nkey.converter={class}\nvalue.converter={class}\n"
        );
        std::fs::write(&worker, text)?;
        let connector = ConnectorConfig::parse(properties, Path::new("connector.properties"))?;
        let mapping = ConfigMapping::of(&connector.with_worker(&worker)?);
        if !mapping.is_complete() {
            return Err(format!("{}: {:?}", self.name, mapping.settings).into());
        }
        let loader = Loader::new(folder.path()).text("mapping", mapping.toml.as_str());
        Ok(loader.load().map_err(|error| format!("{error}\n{}", mapping.toml))?.config)
    }

    /// Inserts all rows, each in its own transaction.
    pub async fn insert(&self, sql: &Client) -> Result<()> {
        let separator = if self.inserted.is_empty() { "" } else { ", " };
        for row in self.rows {
            sql.batch_execute(&format!(
                "INSERT INTO {} (id, aggregatetype, aggregateid, type{separator}{})
                 VALUES (gen_random_uuid(), {row})",
                self.name, self.inserted
            ))
            .await
            .map_err(|error| format!("{}: {row}: {error:?}", self.name))?;
        }
        Ok(())
    }
}
