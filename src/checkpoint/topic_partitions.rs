//! Stores the number of partitions that each topic had when the relay last sent to it, beside the
//! checkpoints: a start notices partitions that were added while no relay ran.

use std::collections::BTreeMap;

use crate::{
    Error, ErrorKind, Result,
    postgres::{GRANT_ALL, Reconnecting, StatementError},
};

pub(crate) const TABLE: &str = "factlib.topic_partitions";

/// SQL that creates the table; running it again changes nothing.
pub(crate) const CREATE_TABLE: &str = "\
CREATE SCHEMA IF NOT EXISTS factlib;
CREATE TABLE IF NOT EXISTS factlib.topic_partitions (
    slot text NOT NULL,
    topic text NOT NULL,
    partitions integer NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, topic)
);
";

const LOAD: &str = "SELECT topic, partitions FROM factlib.topic_partitions WHERE slot = $1";

const SAVE: &str = "\
INSERT INTO factlib.topic_partitions (slot, topic, partitions) VALUES ($1, $2, $3)
ON CONFLICT (slot, topic) DO UPDATE SET partitions = excluded.partitions, changed_at = now()";

/// The table `factlib.topic_partitions` of the source database, for one slot.
pub(crate) struct TopicPartitions {
    slot: String,
    create: bool,
    connection: Reconnecting,
}

impl TopicPartitions {
    /// Uses the table, which is created when first needed if `create` is set.
    pub fn new(slot: String, create: bool, connection: Reconnecting) -> Self {
        TopicPartitions { slot, create, connection }
    }

    /// Creates the table if it is missing.
    pub async fn create(&self) -> Result<()> {
        let created = self.connection.create_tables(&[TABLE], CREATE_TABLE).await;
        created.map_err(|error| self.failed("create", error))
    }

    /// Returns the numbers of all topics.
    pub async fn load(&self) -> Result<BTreeMap<String, usize>> {
        let rows = match self.connection.run(LOAD, &[&self.slot]).await {
            // Nothing was saved yet.
            Err(error) if error.is_missing_table() => return Ok(BTreeMap::new()),
            rows => rows.map_err(|error| self.failed("read", error))?,
        };
        let numbers = rows.iter().filter_map(|row| {
            let partitions: i32 = row.try_get(1).ok()?;
            Some((row.try_get(0).ok()?, usize::try_from(partitions).ok()?))
        });
        Ok(numbers.collect())
    }

    /// Saves the number of a topic's partitions.
    pub async fn save(&self, topic: &str, partitions: usize) -> Result<()> {
        let saved = match self.write(topic, partitions).await {
            Err(error) if self.create && error.is_missing_table() => {
                self.create().await?;
                self.write(topic, partitions).await
            }
            saved => saved,
        };
        saved.map_err(|error| self.failed("write", error))
    }

    async fn write(&self, topic: &str, partitions: usize) -> Result<(), StatementError> {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.connection.run(SAVE, &[&self.slot, &topic, &partitions]).await.map(drop)
    }

    fn failed(&self, what: &str, error: StatementError) -> Error {
        let what = format!("cannot {what} table {TABLE} of {}", self.connection.describe());
        error.explained(ErrorKind::CheckpointUnavailable, what, GRANT_ALL)
    }
}
