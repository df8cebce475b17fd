//! Changes a cluster as an operator does, and watches its leaders.

use std::time::{Duration, Instant};

use factlib_kafka::{Client, Settings, client::PartitionPlaces};
use tokio::time::sleep;

use crate::support::{Bed, bed::LIMIT};

/// A client with every right on the cluster of this bed.
pub fn client(bed: &Bed<'_>) -> Client {
    let brokers = bed.kafka.admin_bootstrap();
    Client::new(Settings::new(brokers.split(',').map(Into::into).collect()))
}

/// Waits until every partition of the bed's topics has a leader, and none of these brokers leads it or is
/// in sync.
pub async fn led_by_others(client: &Client, bed: &Bed<'_>, gone: &[i32]) {
    let (prefix, patience) = (format!("{}.", bed.name), Patience::new());
    loop {
        if let Ok(cluster) = client.cluster(None).await {
            let topics = cluster.topics.iter().filter(|(name, _)| name.starts_with(&prefix));
            let mut partitions = topics.flat_map(|(_, found)| found.iter().flatten());
            // Leaders acknowledge nothing while a dead broker counts as in sync.
            let is_elected = |one: &PartitionPlaces| {
                let others_lead = one.leader.is_some_and(|leader| !gone.contains(&leader));
                others_lead && gone.iter().all(|gone| !one.in_sync.contains(gone))
            };
            if partitions.all(is_elected) {
                return;
            }
        }
        patience.pause("other brokers lead").await;
    }
}

/// Waits until the brokers know the topic, or do not know it any more.
pub async fn await_topic(client: &Client, topic: &str, is_there: bool) {
    let patience = Patience::new();
    while !client.partitions(topic).await.is_ok_and(|found| found.is_some() == is_there) {
        patience.pause("the topic is there, or gone").await;
    }
}

/// Waiting for what nothing signals; it ends.
pub struct Patience(Instant);

impl Patience {
    pub fn new() -> Self {
        Patience(Instant::now())
    }

    /// Pauses for a moment. Panics once this has taken too long; `what` has to come true.
    pub async fn pause(&self, what: &str) {
        assert!(self.0.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
