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
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{Result, servers::Servers};

/// Counting asks the broker for the end of each partition: often enough to time a run of seconds.
const COUNT_INTERVAL: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How many topics there are, one per aggregate type, and how many partitions each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    #[serde(skip)]
    pub aggregate_types: &'static [&'static str],
    pub topics: usize,
    pub partitions: i32,
}

impl Layout {
    /// That of each backlog.
    pub const USUAL: Layout = Layout::of(3, 4);
    /// As many partitions behind one topic, and spread over several: those of `distance`.
    pub const WIDE: [Layout; 2] = [Layout::of(1, 24), Layout::of(8, 3)];

    /// That of the comparison with other relays: 24 partitions in all.
    pub const COMPARED: Layout = Layout::of(3, 8);

    const fn of(topics: usize, partitions: i32) -> Self {
        let (aggregate_types, _) = AGGREGATE_TYPES.split_at(topics);
        Layout { aggregate_types, topics, partitions }
    }
}

const AGGREGATE_TYPES: [&str; 8] =
    ["order", "payment", "customer", "invoice", "shipment", "product", "review", "refund"];

/// The topics of one run.
pub struct Topics {
    pub prefix: String,
    pub layout: Layout,
    bootstrap: String,
}

impl Topics {
    pub async fn create(
        servers: &Servers,
        prefix: &str,
        layout: Layout,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let topics = Topics {
            prefix: prefix.to_owned(),
            layout,
            bootstrap: servers.kafka.admin_bootstrap(),
        };
        let names = topics.names();
        let making = names
            .iter()
            .map(|name| create_topic(&topics.bootstrap, name, layout.partitions, settings));
        try_join_all(making).await?;
        Ok(topics)
    }

    pub fn names(&self) -> Vec<String> {
        self.layout.aggregate_types.iter().map(|kind| format!("{}.{kind}", self.prefix)).collect()
    }

    /// Each partition with its topic's name.
    pub fn partitions(&self) -> Vec<(String, i32)> {
        let of_topic =
            |name: String| (0..self.layout.partitions).map(move |place| (name.clone(), place));
        self.names().into_iter().flat_map(of_topic).collect()
    }

    pub fn consumer(&self) -> Result<BaseConsumer> {
        Ok(ClientConfig::new()
            .set("metadata.recovery.strategy", "none")
            .set("enable.metrics.push", "false")
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "bench")
            .set("enable.auto.commit", "false")
            .create()?)
    }

    /// Waits until there are `count` records, and says when that was.
    pub async fn filled(&self, count: u64, limit: Duration) -> Result<Instant> {
        let (consumer, partitions) = (self.consumer()?, self.partitions());
        spawn_blocking(move || {
            let deadline = Instant::now() + limit;
            loop {
                let records = records(&consumer, &partitions)?;
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
        let (consumer, partitions) = (self.consumer()?, self.partitions());
        spawn_blocking(move || records(&consumer, &partitions)).await?
    }

    pub async fn delete(self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("metadata.recovery.strategy", "none")
            .set("enable.metrics.push", "false")
            .set("bootstrap.servers", &self.bootstrap)
            .create()?;
        let names = self.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answers = admin.delete_topics(&names, &AdminOptions::new()).await?;
        answers.into_iter().try_for_each(|answer| match answer {
            Ok(_) => Ok(()),
            Err((topic, code)) => Err(format!("cannot delete {topic}: {code}").into()),
        })
    }
}

fn records(consumer: &BaseConsumer, partitions: &[(String, i32)]) -> Result<u64> {
    let mut records = 0;
    for (topic, partition) in partitions {
        let begin = Instant::now();
        let (low, high) = loop {
            match consumer.fetch_watermarks(topic, *partition, ANSWER_LIMIT) {
                Ok(ends) => break ends,
                // A topic that was just made has no leader for a moment.
                Err(_) if begin.elapsed() < ANSWER_LIMIT => std::thread::sleep(COUNT_INTERVAL),
                Err(error) => return Err(error.into()),
            }
        };
        records += (high - low).unsigned_abs();
    }
    Ok(records)
}
