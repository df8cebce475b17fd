//! Creates topics, lists them, and waits for brokers.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::Consumer,
    error::KafkaError,
};

use super::{
    ANSWER_LIMIT, PROBE_INTERVAL, await_topic, blocking, client, consumer, late, unavailable,
};
use crate::{Error, ErrorKind, Result};

/// Creates a topic with these settings and the broker's default replication factor, and waits until
/// every partition has a leader.
pub async fn create_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let failed = |cause: KafkaError| {
        let what = format!("cannot create topic {topic}");
        Error::new(ErrorKind::KafkaUnavailable, what).caused_by(cause)
    };
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().map_err(failed)?;
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (key, value) in settings {
        new = new.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_LIMIT));
    for answer in admin.create_topics([&new], &options).await.map_err(failed)? {
        answer.map_err(|(_, code)| failed(KafkaError::AdminOp(code)))?;
    }
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&bootstrap)?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        await_topic(&consumer, &topic, partitions.unsigned_abs() as usize, deadline)
    })
    .await
}

/// Returns the names of all topics, sorted, without Kafka's own.
pub async fn topic_names(bootstrap: &str) -> Result<Vec<String>> {
    let bootstrap = bootstrap.to_owned();
    blocking(move || {
        let metadata = consumer(&bootstrap)?
            .fetch_metadata(None, ANSWER_LIMIT)
            .map_err(|cause| unavailable("cannot list the topics".into()).caused_by(cause))?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("__")).collect();
        names.sort_unstable();
        Ok(names)
    })
    .await
}

/// Waits until the broker at `address` answers and lists the brokers of these ids.
pub(crate) async fn await_broker(address: String, ids: Vec<i32>, limit: Duration) -> Result<()> {
    blocking(move || {
        let consumer = consumer(&address)?;
        let deadline = Instant::now() + limit;
        loop {
            let listed = match consumer.fetch_metadata(None, Duration::from_secs(1)) {
                Ok(metadata) => metadata.brokers().iter().map(|broker| broker.id()).collect(),
                Err(_) => Vec::new(),
            };
            if ids.iter().all(|id| listed.contains(id)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(late(
                    format!("broker at {address} lists {listed:?} of {ids:?}"),
                    limit,
                ));
            }
            std::thread::sleep(PROBE_INTERVAL);
        }
    })
    .await
}
