//! A place of one's own on the shared servers: database, slot, topics.

use std::time::Duration;

use factlib::{
    Lsn, Pipeline, PipelineBuilder,
    config::Config,
    testing::{
        ConsumedRecord, KafkaServer, PostgresServer, read_topic, shared_kafka, shared_postgres,
        topic_names, wait_for_count,
    },
};
use tokio_postgres::Client;

use super::{History, Report, history::Checker};

/// Partitions of the topics that a bed's pipeline creates.
pub const PARTITIONS: i32 = 6;

/// How long anything may take that should take seconds; the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Bed<'a> {
    pub postgres: &'a PostgresServer,
    pub kafka: &'a KafkaServer,
    pub database: String,
    /// Message prefix, slot, publication and topic prefix at once.
    pub name: String,
    pub config: Config,
}

impl Bed<'static> {
    /// On the servers of this process.
    pub async fn shared(name: &str) -> Self {
        let postgres = shared_postgres().await.expect("PostgreSQL starts");
        let kafka = shared_kafka().await.expect("Kafka starts");
        Bed::on(postgres, kafka, name).await
    }
}

impl<'a> Bed<'a> {
    /// On servers of one's own.
    pub async fn on(postgres: &'a PostgresServer, kafka: &'a KafkaServer, name: &str) -> Self {
        let database = postgres.create_database(name).await.expect("a database");
        let name = database.clone();
        let mut config = Config::default();
        config.postgres.url = postgres.url_for(&database).into();
        config.postgres.slot = name.clone();
        config.postgres.publication = name.clone();
        config.postgres.message_prefix = name.clone();
        config.kafka.brokers = vec![kafka.bootstrap()];
        config.kafka.topics.partitions = Some(PARTITIONS);
        config.checkpoint.idle_interval = Duration::from_millis(500);
        Bed { postgres, kafka, database, name, config }
    }

    pub fn pipeline(&self) -> PipelineBuilder {
        Pipeline::builder().config(self.config.clone())
    }

    pub async fn client(&self) -> Client {
        self.postgres.connect(&self.database).await.expect("a session")
    }

    /// The topics of the history's aggregate types.
    pub fn topics(&self, history: &History) -> Vec<String> {
        let kinds = history.aggregate_types();
        kinds.iter().map(|kind| format!("{}.{kind}", self.config.topic_prefix())).collect()
    }

    /// Waits until as many records are there as facts were committed.
    pub async fn delivered(&self, history: &History) {
        let topics = self.topics(history);
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let bootstrap = self.kafka.admin_bootstrap();
        wait_for_count(&bootstrap, &names, history.len(), LIMIT).await.expect("all arrive");
    }

    /// Everything in Kafka under our prefix, partition by partition.
    pub async fn records(&self) -> Vec<ConsumedRecord> {
        let bootstrap = self.kafka.admin_bootstrap();
        let prefix = format!("{}.", self.config.topic_prefix());
        let mut records = Vec::new();
        for topic in topic_names(&bootstrap).await.expect("the topics' names") {
            if topic.starts_with(&prefix) {
                records.extend(read_topic(&bootstrap, &topic).await.expect("a readable topic"));
            }
        }
        records
    }

    /// Reads all back and holds it against the history.
    pub async fn check(&self, history: &History) -> Report {
        let partitions = self.config.kafka.topics.partitions;
        let mut checker = Checker::new(history, self.config.topic_prefix(), partitions);
        for record in self.records().await {
            checker.record(&record);
        }
        checker.report()
    }

    /// The slot's confirmed position, and whether anybody reads it.
    pub async fn slot(&self) -> (Lsn, bool) {
        let query = "SELECT confirmed_flush_lsn::text, active FROM pg_replication_slots WHERE slot_name = $1";
        let row = self.client().await.query_one(query, &[&self.name]).await.expect("the slot");
        (row.get::<_, &str>(0).parse().expect("a position"), row.get(1))
    }

    /// Where the server's WAL ends now.
    pub async fn wal_end(&self) -> Lsn {
        let query = "SELECT pg_current_wal_lsn()::text";
        let text = self.postgres.query_text(&self.database, query).await.expect("a position");
        text.parse().expect("a position")
    }

    /// Waits until everything before `lsn` is confirmed.
    pub async fn confirmed(&self, lsn: Lsn) {
        let waiting = async {
            while self.slot().await.0 < lsn {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the position is confirmed");
    }
}
