//! Topics of a run: made before, counted while it runs, deleted after.

use std::time::{Duration, Instant};

use factlib::testing::create_topic;
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tokio::task::spawn_blocking;

use crate::{
    Result,
    backlog::AGGREGATE_TYPES,
    servers::{PARTITIONS, Servers},
};

/// Counting asks the broker for the end of each partition: often enough to time a run of seconds.
const COUNT_INTERVAL: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The topics of one run.
pub struct Topics {
    pub prefix: String,
    bootstrap: String,
}

impl Topics {
    pub async fn create(
        servers: &Servers,
        prefix: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let topics =
            Topics { prefix: prefix.to_owned(), bootstrap: servers.kafka.admin_bootstrap() };
        let names = topics.names();
        let making =
            names.iter().map(|name| create_topic(&topics.bootstrap, name, PARTITIONS, settings));
        try_join_all(making).await?;
        Ok(topics)
    }

    pub fn names(&self) -> Vec<String> {
        AGGREGATE_TYPES.iter().map(|kind| format!("{}.{kind}", self.prefix)).collect()
    }

    pub fn consumer(&self) -> Result<BaseConsumer> {
        Ok(ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .create()?)
    }

    /// Waits until there are `count` records, and says when that was.
    pub async fn filled(&self, count: u64, limit: Duration) -> Result<Instant> {
        let (consumer, names) = (self.consumer()?, self.names());
        spawn_blocking(move || {
            let deadline = Instant::now() + limit;
            loop {
                let records = records(&consumer, &names)?;
                let now = Instant::now();
                if records >= count {
                    return Ok(now);
                }
                if now > deadline {
                    return Err(format!("{records} of {count} records after {limit:?}").into());
                }
                std::thread::sleep(COUNT_INTERVAL);
            }
        })
        .await?
    }

    pub async fn records(&self) -> Result<u64> {
        let (consumer, names) = (self.consumer()?, self.names());
        spawn_blocking(move || records(&consumer, &names)).await?
    }

    pub async fn delete(self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create()?;
        let names = self.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answers = admin.delete_topics(&names, &AdminOptions::new()).await?;
        answers.into_iter().try_for_each(|answer| match answer {
            Ok(_) => Ok(()),
            Err((topic, code)) => Err(format!("cannot delete {topic}: {code}").into()),
        })
    }
}

fn records(consumer: &BaseConsumer, topics: &[String]) -> Result<u64> {
    let mut records = 0;
    for topic in topics {
        for partition in 0..PARTITIONS {
            let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_LIMIT)?;
            records += (high - low).unsigned_abs();
        }
    }
    Ok(records)
}
