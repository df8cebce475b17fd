//! Offsets and records of a partition.

use std::{ops::Range, time::Duration};

use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, TopicName,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use super::{Client, Error, Result, text};
use crate::read_batch::{Undone, read_batches};

/// `FETCH_VERSION` is the newest that names topics by their names.
const FETCH_VERSION: i16 = 12;

/// Bytes of a fetch; a larger record comes alone.
const FETCH_BYTES: i32 = 8 << 20;

/// Times that stand for a place in the log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// What of transactions is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only what was committed; reading stops before what may still be.
    ReadCommitted,
    /// Also what may be undone, or was.
    ReadUncommitted,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedRecord {
    /// Its place in the partition.
    pub offset: i64,
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// None for a record without one.
    pub key: Option<bytes::Bytes>,
    /// None for a tombstone.
    pub value: Option<bytes::Bytes>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<bytes::Bytes>)>,
}

/// A piece of a partition.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// The records, in order; none where nothing is there yet, or nothing but what was undone.
    pub records: Vec<FetchedRecord>,
    /// The offset to go on from.
    pub next_offset: i64,
    /// End of what can be read now.
    pub end_offset: i64,
}

impl Client {
    /// The offsets that a partition has now: of its first record, and behind its last one.
    ///
    /// # Errors
    /// The broker's: the user needs the right `Describe`.
    pub async fn offsets(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
    ) -> Result<Range<i64>> {
        let begin = self.offset(topic, partition, isolation, EARLIEST).await?;
        let end = self.offset(topic, partition, isolation, LATEST).await?;
        Ok(begin..end.max(begin))
    }

    async fn offset(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
        time: i64,
    ) -> Result<i64> {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(time);
        let of_topic = ListOffsetsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(level(isolation))
            .with_topics(vec![of_topic]);
        let asking = self.ask_leader((topic, partition), &request, 7, |answer| {
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            (partitions.map(|p| p.error_code).next().unwrap_or(0), "cannot ask for offsets of")
        });
        let answer = asking.await?;
        let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.next().map(|partition| partition.offset).ok_or_else(|| missing(topic, partition))
    }

    /// Records of a partition from an offset on; waits up to `wait` where there are none.
    ///
    /// # Errors
    /// The broker's: `OFFSET_OUT_OF_RANGE` for an offset that the partition does not have any more,
    /// and where the user lacks the right `Read`.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        isolation: Isolation,
        wait: Duration,
    ) -> Result<Fetched> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_BYTES);
        let of_topic =
            FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![wanted]);
        let wait = wait.min(self.settings.request_timeout / 2);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_isolation_level(level(isolation))
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![of_topic]);
        let asking = self.ask_leader((topic, partition), &request, FETCH_VERSION, |answer| {
            let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            let code = partitions.map(|p| p.error_code).find(|code| *code != 0);
            (code.unwrap_or(answer.error_code), "cannot read")
        });
        let answer = asking.await?;
        let partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        let data = partitions.into_iter().next().ok_or_else(|| missing(topic, partition))?;
        let undone = data.aborted_transactions.into_iter().flatten();
        let undone = undone.map(|t| Undone { producer_id: t.producer_id.0, from: t.first_offset });
        let undone = match isolation {
            Isolation::ReadCommitted => undone.collect(),
            Isolation::ReadUncommitted => Vec::new(),
        };
        let bytes = data.records.unwrap_or_default();
        let read = read_batches(bytes, offset, undone).map_err(|what| Error::Protocol {
            address: format!("partition {partition} of topic {topic}").into(),
            what,
        })?;
        let end_offset = match isolation {
            // Brokers before 0.11 have no transactions, and say -1.
            Isolation::ReadCommitted if data.last_stable_offset >= 0 => data.last_stable_offset,
            _ => data.high_watermark,
        };
        Ok(Fetched { records: read.records, next_offset: read.next_offset, end_offset })
    }
}

fn level(isolation: Isolation) -> i8 {
    match isolation {
        Isolation::ReadCommitted => 1,
        Isolation::ReadUncommitted => 0,
    }
}

fn missing(topic: &str, partition: i32) -> Error {
    Error::Protocol {
        address: format!("partition {partition} of topic {topic}").into(),
        what: "the answer is about something else".into(),
    }
}
