//! Reads the records of topics.

use std::time::Duration;

use factlib_kafka::{
    Client,
    client::{FetchedRecord, Isolation},
};
use tokio::time::Instant;

use super::{ANSWER_LIMIT, ConsumedRecord, client, create::await_topic, late, unreadable};
use crate::Result;

const COMMITTED: Isolation = Isolation::ReadCommitted;

/// Time for which one partition is waited for before the next is looked at.
const FETCH_WAIT: Duration = Duration::from_millis(20);

/// Reads a topic like [`read_topic`](super::read_topic) and calls `take` with each record, for topics that do not fit into
/// memory.
pub async fn each_record(
    bootstrap: &str,
    topic: &str,
    mut take: impl FnMut(ConsumedRecord),
) -> Result<()> {
    let client = client(bootstrap, ANSWER_LIMIT);
    let failed = |cause| unreadable(topic, cause);
    for mut reading in partitions(&client, topic, Instant::now() + ANSWER_LIMIT).await? {
        let end = client.offsets(topic, reading.partition, COMMITTED).await.map_err(failed)?.end;
        // Each answer extends the limit: a large topic takes long.
        let mut deadline = Instant::now() + ANSWER_LIMIT;
        while reading.offset < end {
            let before = reading.offset;
            for record in reading.next(&client).await? {
                take(record);
            }
            if reading.offset > before {
                deadline = Instant::now() + ANSWER_LIMIT;
            } else if Instant::now() > deadline {
                return Err(late(format!("cannot read topic {topic} to its end"), ANSWER_LIMIT));
            }
        }
    }
    Ok(())
}

/// Reads topics from their start until there are `count` records in all, and returns them.
///
/// The topics need not exist yet. The error at the time limit has the number of records read.
pub async fn wait_for_count(
    bootstrap: &str,
    topics: &[&str],
    count: usize,
    limit: Duration,
) -> Result<Vec<ConsumedRecord>> {
    let client = client(bootstrap, ANSWER_LIMIT);
    let deadline = Instant::now() + limit;
    let (mut all, mut records) = (Vec::new(), Vec::new());
    for topic in topics {
        all.extend(partitions(&client, topic, deadline).await?);
    }
    while records.len() < count {
        for reading in &mut all {
            let missing = count - records.len();
            records.extend(reading.next(&client).await?.take(missing));
        }
        if Instant::now() > deadline && records.len() < count {
            let (names, read) = (topics.join(", "), records.len());
            return Err(late(format!("{read} of {count} records in {names}"), limit));
        }
    }
    Ok(records)
}

/// A partition, and the offset of the next record.
struct Reading {
    topic: String,
    partition: i32,
    offset: i64,
}

/// Waits for a topic and returns the starts of its partitions.
async fn partitions(client: &Client, topic: &str, deadline: Instant) -> Result<Vec<Reading>> {
    let mut all = Vec::new();
    for place in await_topic(client, topic, 1, deadline).await? {
        let partition = place.partition;
        let offsets = client.offsets(topic, partition, COMMITTED).await;
        let offset = offsets.map_err(|cause| unreadable(topic, cause))?.start;
        all.push(Reading { topic: topic.to_owned(), partition, offset });
    }
    Ok(all)
}

impl Reading {
    /// Returns the next records, if there are any soon.
    async fn next(&mut self, client: &Client) -> Result<impl Iterator<Item = ConsumedRecord>> {
        let fetching =
            client.fetch(&self.topic, self.partition, self.offset, COMMITTED, FETCH_WAIT);
        let fetched = fetching.await.map_err(|cause| unreadable(&self.topic, cause))?;
        self.offset = fetched.next_offset;
        let (topic, partition) = (self.topic.clone(), self.partition);
        let records = fetched.records.into_iter();
        Ok(records.map(move |fetched| record(&topic, partition, fetched)))
    }
}

fn record(topic: &str, partition: i32, record: FetchedRecord) -> ConsumedRecord {
    ConsumedRecord {
        topic: topic.to_owned(),
        partition,
        offset: record.offset,
        timestamp_ms: Some(record.timestamp_ms).filter(|time| *time >= 0),
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect(),
    }
}
