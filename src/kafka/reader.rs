//! Reads a topic from its beginning to its current end, one partition after another.
//!
//! The reader joins no group and commits nothing, so it disturbs nobody. Asking for a topic never
//! creates it.

use std::{collections::VecDeque, ops::Range, time::Duration};

use factlib_kafka::{
    Code, Error as ClientError,
    client::{Fetched, FetchedRecord, Isolation, LogEnd},
};
use slog::{Logger, debug};
use tokio::time::{Instant, sleep};

use super::{
    KafkaSettings,
    broker_client::BrokerClient,
    errors::{as_relay_error, lacks_right},
};
use crate::{Error, Result};

/// Limit for one question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for silence while there is more to read: longer than a broker takes to come back.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Longest time for which a broker waits for records before it answers.
const FETCH_WAIT: Duration = Duration::from_millis(20);
/// Pause after a failed request.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A topic that exists.
pub(crate) struct TopicReader {
    client: BrokerClient,
    topic: String,
    isolation: Isolation,
    partitions: Vec<i32>,
    cursor: Cursor,
    log: Logger,
}

/// Returns the names of all topics that this user may see.
pub(crate) async fn topic_names(settings: &KafkaSettings) -> Result<Vec<String>> {
    let client = BrokerClient::new(settings)?;
    let listing = client.client().cluster(None);
    let cluster = client.within(REQUEST_TIMEOUT, "cannot list the topics", listing).await?;
    Ok(cluster.topics.into_keys().collect())
}

/// The place that is read, and the records that were fetched from there.
#[derive(Default)]
struct Cursor {
    partition: i32,
    next_offset: i64,
    fetched: VecDeque<FetchedRecord>,
    /// True once a broker has answered: an empty partition is read too, so that a missing right
    /// shows.
    has_answer: bool,
}

impl TopicReader {
    /// Looks the topic up; none if there is no such topic.
    pub async fn open(
        settings: &KafkaSettings,
        topic: &str,
        isolation: Isolation,
        log: Logger,
    ) -> Result<Option<Self>> {
        let client = BrokerClient::new(settings)?;
        let what = format!("cannot look up topic {topic}");
        let found = client.within(REQUEST_TIMEOUT, what, client.client().partitions(topic)).await;
        let Some(found) = found.map_err(as_relay_error)? else { return Ok(None) };
        let partitions = found.into_iter().map(|places| places.partition).collect();
        let (topic, cursor) = (topic.to_owned(), Cursor::default());
        Ok(Some(TopicReader { client, topic, isolation, partitions, cursor, log }))
    }

    /// The partitions in their order.
    pub fn partitions(&self) -> &[i32] {
        &self.partitions
    }

    /// The topic's identifier, which changes when it is deleted and created again; 0 from brokers before
    /// 2.8; none if the topic is gone.
    pub async fn topic_id(&self) -> Result<Option<u128>> {
        let asking = self.client.client().topic_id(&self.topic);
        let what = format!("cannot look up topic {}", self.topic);
        self.client.within(REQUEST_TIMEOUT, what, asking).await.map_err(as_relay_error)
    }

    /// Returns the offsets that a partition has now.
    pub async fn offsets(&self, partition: i32) -> Result<Range<i64>> {
        let asking = self.client.client().offsets(&self.topic, partition, self.isolation);
        let what = format!("cannot read topic {}", self.topic);
        let offsets = self.client.within(REQUEST_TIMEOUT, what, asking).await;
        offsets.map_err(without_right)
    }

    /// Returns the end that a partition has now.
    pub async fn log_end(&self, partition: i32) -> Result<LogEnd> {
        let asking = self.client.client().log_end(&self.topic, partition, self.isolation);
        let what = format!("cannot read topic {}", self.topic);
        self.client.within(REQUEST_TIMEOUT, what, asking).await.map_err(without_right)
    }

    /// Returns the offset of a partition's first record of this time (Unix milliseconds) or later;
    /// none if there is none.
    pub async fn offset_at(&self, partition: i32, time_ms: i64) -> Result<Option<i64>> {
        let client = self.client.client();
        let asking = client.offset_at(&self.topic, partition, self.isolation, time_ms);
        let what = format!("cannot read topic {}", self.topic);
        self.client.within(REQUEST_TIMEOUT, what, asking).await.map_err(without_right)
    }

    /// Makes [`next`](Self::next) return this partition's records from `offset` on.
    pub fn seek(&mut self, partition: i32, offset: i64) {
        self.cursor = Cursor { partition, next_offset: offset, ..Cursor::default() };
    }

    /// Returns the next record before the offset `end`; none if there is none.
    pub async fn next(&mut self, end: i64) -> Result<Option<FetchedRecord>> {
        loop {
            if let Some(record) = self.cursor.fetched.pop_front() {
                return Ok((record.offset < end).then_some(record));
            }
            if self.cursor.has_answer && self.cursor.next_offset >= end {
                return Ok(None);
            }
            let offset = self.cursor.next_offset;
            let fetched = self.next_stretch().await?;
            let end_offset = fetched.as_ref().map(|fetched| fetched.end_offset);
            self.cursor.fetched = fetched.map(|fetched| fetched.records.into()).unwrap_or_default();
            if self.cursor.next_offset <= offset && end_offset.is_none_or(|end| end <= offset) {
                return Ok(None);
            }
        }
    }

    /// The offset from which [`next_stretch`](Self::next_stretch) reads.
    pub fn offset(&self) -> i64 {
        self.cursor.next_offset
    }

    /// Reads what one answer of a broker holds; nothing if there is no more yet. None if the partition
    /// does not have the offset: then the next one reads from its beginning.
    pub async fn next_stretch(&mut self) -> Result<Option<Fetched>> {
        let Cursor { partition, next_offset: offset, .. } = self.cursor;
        let began = Instant::now();
        let fetched = loop {
            let client = self.client.client();
            let answer = client.fetch(&self.topic, partition, offset, self.isolation, FETCH_WAIT);
            match answer.await {
                Ok(fetched) => break fetched,
                Err(error) if error.code() == Some(Code::OffsetOutOfRange) => {
                    // Retention has deleted the records meanwhile, or the log was cut.
                    let range = self.offsets(partition).await?;
                    self.cursor.has_answer = true;
                    self.cursor.next_offset = range.start;
                    return Ok(None);
                }
                Err(error) if passes(&error) && began.elapsed() < SILENCE_LIMIT => {
                    debug!(self.log, "cannot read a topic, trying again";
                        "topic" => &self.topic, "error" => %error);
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    let what = format!("cannot read topic {}", self.topic);
                    return Err(without_right(self.client.error(what, error)));
                }
            }
        };
        self.cursor.has_answer = true;
        self.cursor.next_offset = fetched.next_offset;
        Ok(Some(fetched))
    }
}

/// Returns true for errors that end once brokers are back.
fn passes(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Connection { .. }
            | ClientError::HungUp { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Unresolved { .. }
    )
}

fn without_right(error: Error) -> Error {
    match lacks_right(&error) {
        true => as_relay_error(error).remedy("the user needs the ACLs Describe and Read"),
        false => error,
    }
}
