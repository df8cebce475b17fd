//! Creates topics, lists them, and waits for brokers and topics.

use std::time::Duration;

use factlib_kafka::{
    Client,
    client::{NewTopic, PartitionPlaces},
};
use tokio::time::{Instant, sleep};

use super::{ANSWER_LIMIT, PROBE_INTERVAL, client, late, unavailable};
use crate::Result;

/// Time limit of one request while a broker starts.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Creates a topic with these settings and the broker's default replication factor, and waits until
/// every partition has a leader.
pub async fn create_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let client = client(bootstrap, ANSWER_LIMIT);
    let new = NewTopic {
        name: topic.into(),
        partitions: Some(partitions),
        replication_factor: None,
        settings: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    client
        .create_topic(&new, false)
        .await
        .map_err(|cause| unavailable(format!("cannot create topic {topic}")).caused_by(cause))?;
    let deadline = Instant::now() + ANSWER_LIMIT;
    await_topic(&client, topic, partitions.unsigned_abs() as usize, deadline).await?;
    Ok(())
}

/// Returns the names of all topics, sorted, without Kafka's own.
pub async fn topic_names(bootstrap: &str) -> Result<Vec<String>> {
    let cluster = client(bootstrap, ANSWER_LIMIT).cluster(None).await;
    let cluster =
        cluster.map_err(|cause| unavailable("cannot list the topics".into()).caused_by(cause))?;
    // They are sorted.
    Ok(cluster.topics.into_keys().filter(|name| !name.starts_with("__")).collect())
}

/// Waits until the broker at `address` answers and lists the brokers of these ids.
pub(crate) async fn await_broker(address: String, ids: Vec<i32>, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        // A client would remember the other brokers, and this one has to answer.
        let listed = match client(&address, PROBE_LIMIT).cluster(Some(&[])).await {
            Ok(cluster) => cluster.brokers.iter().map(|broker| broker.id).collect(),
            Err(_) => Vec::new(),
        };
        if ids.iter().all(|id| listed.contains(id)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(late(format!("broker at {address} lists {listed:?} of {ids:?}"), limit));
        }
        sleep(PROBE_INTERVAL).await;
    }
}

/// Waits until at least `count` partitions exist and each partition has a leader; returns them.
pub(super) async fn await_topic(
    client: &Client,
    topic: &str,
    count: usize,
    deadline: Instant,
) -> Result<Vec<PartitionPlaces>> {
    loop {
        if let Ok(Some(partitions)) = client.partitions(topic).await
            && partitions.len() >= count
            && partitions.iter().all(|place| place.leader.is_some())
        {
            return Ok(partitions);
        }
        if Instant::now() > deadline {
            return Err(unavailable(format!("topic {topic} does not exist, or has no leader")));
        }
        sleep(PROBE_INTERVAL).await;
    }
}
