//! Asks for the number of a topic's partitions.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::producer::KafkaProducer;

/// Limit for the question; without an answer the number is only not known.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the brokers; 0 where they do not say.
pub(crate) async fn partitions(asking: &KafkaProducer, topic: &str) -> usize {
    let (asking, topic) = (asking.clone(), topic.to_owned());
    let asked = spawn_blocking(move || {
        let answer = asking.client().fetch_metadata(Some(&topic), LIMIT).ok()?;
        let topic = answer.topics().first().filter(|topic| topic.error().is_none())?;
        Some(topic.partitions().len())
    });
    asked.await.ok().flatten().unwrap_or_default()
}
