//! PostgreSQL and Kafka of a benchmark, with its database, and their replication slots.

use std::time::{Duration, Instant};

use factlib::testing::{KafkaServer, KafkaServerBuilder, PostgresServer, PostgresServerBuilder};
use tokio_postgres::Client;

use super::Result;

/// Settings of a PostgreSQL without a checkpoint in the middle of a run.
pub const POSTGRES_SETTINGS: &[(&str, &str)] =
    &[("shared_buffers", "512MB"), ("max_wal_size", "16GB"), ("checkpoint_timeout", "1h")];

/// Options that Kafka's own scripts give a broker: tests have a JVM that compiles little.
pub const KAFKA_JVM: &[&str] = &["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"];

/// Name of the database, the publication and the prefix of messages.
pub const NAME: &str = "factlib";

pub struct Servers {
    pub postgres: PostgresServer,
    pub kafka: KafkaServer,
    pub sql: Client,
}

impl Servers {
    /// Starts both, with [`POSTGRES_SETTINGS`] and [`KAFKA_JVM`], and creates the schema.
    pub async fn start(
        mut postgres: PostgresServerBuilder,
        kafka: KafkaServerBuilder,
        schema: &str,
    ) -> Result<Self> {
        for (name, value) in POSTGRES_SETTINGS {
            postgres = postgres.setting(*name, *value);
        }
        let postgres = postgres.start().await?;
        let kafka = kafka.jvm(KAFKA_JVM.iter().copied()).start().await?;
        postgres.execute("postgres", &format!("CREATE DATABASE {NAME}")).await?;
        let sql = postgres.connect(NAME).await?;
        sql.batch_execute(schema).await?;
        Ok(Servers { postgres, kafka, sql })
    }

    /// Opens the session again after PostgreSQL was stopped.
    pub async fn reconnect(&mut self) -> Result<()> {
        self.sql = self.postgres.connect(NAME).await?;
        Ok(())
    }

    pub fn url(&self) -> String {
        self.postgres.url_for(NAME)
    }

    pub async fn create_slot(&self, slot: &str) -> Result<()> {
        let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
        self.sql.query_one(create, &[&slot]).await?;
        Ok(())
    }

    pub async fn copy_slot(&self, from: &str, to: &str) -> Result<()> {
        let copy = "SELECT pg_copy_logical_replication_slot($1::text::name, $2::text::name)::text";
        self.sql.query_one(copy, &[&from, &to]).await?;
        Ok(())
    }

    /// Drops a slot as soon as nobody reads it any more.
    pub async fn drop_slot(&self, slot: &str) -> Result<()> {
        while self.active_pid(slot).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.sql.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await?;
        Ok(())
    }

    /// The process that reads the slot for somebody.
    pub async fn active_pid(&self, slot: &str) -> Result<Option<u32>> {
        let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1::text::name";
        let row = self.sql.query_opt(query, &[&slot]).await?;
        let pid: Option<i32> = row.and_then(|row| row.get(0));
        Ok(pid.map(i32::unsigned_abs))
    }

    /// Waits until the slot's position is behind this one, and says when that was.
    pub async fn confirmed(&self, slot: &str, lsn: &str) -> Result<Instant> {
        let query = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots \
                     WHERE slot_name = $1::text::name";
        while !self.sql.query_one(query, &[&slot, &lsn]).await?.get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Instant::now())
    }

    pub async fn text(&self, query: &str) -> Result<String> {
        Ok(self.sql.query_one(query, &[]).await?.get(0))
    }
}
