//! A place of one's own on the shared servers: database, slot, topics.

use std::time::Duration;

use factlib::{
    Lsn, Pipeline, PipelineBuilder,
    config::{Config, KafkaClient, RefusalPolicy},
    testing::{
        ConsumedRecord, KafkaServer, PostgresServer, each_record, shared_kafka, shared_postgres,
        topic_names, wait_for_count,
    },
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
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
        // Servers that are slow on a busy machine are no failure.
        config.pipeline.startup_timeout = LIMIT;
        Bed { postgres, kafka, database, name, config }
    }

    /// Without a word in the output of the test.
    pub fn pipeline(&self) -> PipelineBuilder {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        Pipeline::builder().config(self.config.clone()).logger(log)
    }

    pub async fn client(&self) -> Client {
        self.postgres.connect(&self.database).await.expect("a session")
    }

    /// How to open sessions such as [`client`](Self::client), from any task.
    pub fn sessions(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.postgres.socket_dir()).port(self.postgres.port());
        config.user("postgres").dbname(&self.database);
        config
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

    /// Gives every event in Kafka under our prefix, partition by partition.
    pub async fn each_record(&self, mut take: impl FnMut(ConsumedRecord)) {
        let bootstrap = self.kafka.admin_bootstrap();
        let prefix = format!("{}.", self.config.topic_prefix());
        let own = [self.config.position_topic(), self.config.receipt_topic()];
        for topic in topic_names(&bootstrap).await.expect("the topics' names") {
            if topic.starts_with(&prefix) && !own.contains(&topic) {
                each_record(&bootstrap, &topic, &mut take).await.expect("a readable topic");
            }
        }
    }

    /// Reads all back and holds it, and what is confirmed, against the history.
    pub async fn check(&self, history: &History) -> Report {
        let partitions = self.config.kafka.topics.partitions;
        let mut checker = Checker::new(history, self.config.topic_prefix(), partitions);
        if self.config.kafka.client == KafkaClient::Kafka {
            checker.plain();
        }
        checker.confirmed(self.slot().await.0);
        self.each_record(|record| checker.record(&record)).await;
        checker.report()
    }

    /// Sets the largest batch that a topic takes.
    pub async fn set_limit(&self, topic: &str, bytes: &str) {
        self.set(topic, "max.message.bytes", bytes).await;
    }

    /// Changes a setting of a topic.
    pub async fn set(&self, topic: &str, name: &str, value: &str) {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.kafka.admin_bootstrap());
        let admin: AdminClient<DefaultClientContext> = client.create().expect("a client");
        let topic = ResourceSpecifier::Topic(topic);
        let change = AlterConfig::new(topic).set(name, value);
        let answers = admin.alter_configs([&change], &AdminOptions::new()).await;
        let answers = answers.expect("an answer");
        answers.into_iter().for_each(|answer| drop(answer.expect("changed")));
    }

    /// The slot's confirmed position, and whether anybody reads it.
    pub async fn slot(&self) -> (Lsn, bool) {
        let query = "SELECT confirmed_flush_lsn::text, active FROM pg_replication_slots WHERE slot_name = $1";
        let row = self.client().await.query_one(query, &[&self.name]).await.expect("the slot");
        (row.get::<_, &str>(0).parse().expect("a position"), row.get(1))
    }

    /// The position that the relay has saved in the database; none before the first.
    pub async fn saved(&self) -> Option<Lsn> {
        let query = "SELECT lsn::text FROM factlib.checkpoints WHERE slot = $1";
        let row = self.client().await.query_opt(query, &[&self.name]).await.ok()??;
        Some(row.get::<_, &str>(0).parse().expect("a position"))
    }

    /// How many records stand behind a position: what a crash may repeat.
    pub async fn records_behind(&self, lsn: Lsn) -> u64 {
        let mut count = 0;
        self.each_record(|record| {
            let header = record.header("LSN").map(|lsn| String::from_utf8_lossy(lsn).into_owned());
            let behind = header.and_then(|text| text.parse::<Lsn>().ok()).is_none_or(|at| at > lsn);
            count += u64::from(behind);
        })
        .await;
        count
    }

    /// Gives the slot up, so that the server can forget the WAL.
    pub async fn drop_slot(&self) {
        let query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        self.client().await.execute(query, &[&self.name]).await.expect("the slot is dropped");
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
