//! Reads the offsets and records of a partition.

use std::{ops::Range, time::Duration};

use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, TopicName,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use super::{Client, Error, Result, text};
use crate::read_batch::{AbortedTransaction, ReadBatches, read_batches};

/// Newest version that identifies topics by name.
const FETCH_VERSION: i16 = 12;

/// Maximum bytes of a response; a larger record comes alone.
const FETCH_BYTES: i32 = 8 << 20;

/// Special timestamps for the end and the start of the log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Visibility of records in transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Reads only committed records, up to the first open transaction.
    ReadCommitted,
    /// Reads all records, including those of open and aborted transactions.
    ReadUncommitted,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedRecord {
    /// Offset in the partition.
    pub offset: i64,
    /// Time in Unix milliseconds.
    pub timestamp_ms: i64,
    /// Key; none for a record without a key.
    pub key: Option<bytes::Bytes>,
    /// Value; none for a tombstone.
    pub value: Option<bytes::Bytes>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<bytes::Bytes>)>,
    /// Id of the producer in whose transaction the record is; none outside of transactions. The next
    /// [`TransactionEnd`] of this producer decides about the record.
    pub transaction_of: Option<i64>,
}

/// The end of a transaction, which Kafka writes into each partition that the transaction has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionEnd {
    /// Offset in the partition.
    pub offset: i64,
    /// Id of the producer.
    pub producer_id: i64,
    /// True if the transaction was committed, false if it was aborted.
    pub is_committed: bool,
}

/// Records of a partition from one Fetch request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// Records in order; empty if there are no new records, or only aborted ones.
    pub records: Vec<FetchedRecord>,
    /// Ends of transactions in the same stretch of the partition, in order.
    pub ends: Vec<TransactionEnd>,
    /// Offset to continue from.
    pub next_offset: i64,
    /// End of the readable part of the partition.
    pub end_offset: i64,
}

/// The present end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEnd {
    /// Offset behind the last record.
    pub offset: i64,
    /// Number of the leader that told it: each new leader has a higher one. -1 from brokers before 2.1.
    pub leader_epoch: i32,
}

impl Client {
    /// Returns the present range of offsets: from the first record to behind the last.
    ///
    /// # Errors
    /// Returns the broker's error. The user needs the right `Describe`.
    pub async fn offsets(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
    ) -> Result<Range<i64>> {
        let begin = self.log_offset(topic, partition, isolation, EARLIEST).await?.offset;
        let end = self.log_end(topic, partition, isolation).await?.offset;
        Ok(begin..end.max(begin))
    }

    /// Returns the present end of a partition. With the same leader, it never goes back; a new leader
    /// answers only once it has all that the one before has told (KIP-207).
    ///
    /// # Errors
    /// As [`offsets`](Self::offsets).
    pub async fn log_end(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
    ) -> Result<LogEnd> {
        self.log_offset(topic, partition, isolation, LATEST).await
    }

    /// Returns the offset of the first record of this time (Unix milliseconds) or later; none if there
    /// is none.
    ///
    /// # Errors
    /// As [`offsets`](Self::offsets).
    pub async fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
        time_ms: i64,
    ) -> Result<Option<i64>> {
        let found = self.log_offset(topic, partition, isolation, time_ms.max(0)).await?.offset;
        Ok((found >= 0).then_some(found))
    }

    async fn log_offset(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
        time: i64,
    ) -> Result<LogEnd> {
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
        let pending = self.request_leader((topic, partition), &request, 7, |response| {
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            (partitions.map(|p| p.error_code).next().unwrap_or(0), "cannot read the offsets of")
        });
        let response = pending.await?;
        let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let found = partitions.next().ok_or_else(|| missing(topic, partition))?;
        Ok(LogEnd { offset: found.offset, leader_epoch: found.leader_epoch })
    }

    /// Reads records of a partition from an offset on; waits up to `wait` if there are none.
    ///
    /// # Errors
    /// Returns the broker's error: for example `OFFSET_OUT_OF_RANGE` if the partition no longer
    /// has the offset. The user needs the right `Read`.
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
        let pending =
            self.request_leader((topic, partition), &request, FETCH_VERSION, |response| {
                let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
                let code = partitions.map(|p| p.error_code).find(|code| *code != 0);
                (code.unwrap_or(response.error_code), "cannot read")
            });
        let response = pending.await?;
        let partitions = response.responses.into_iter().flat_map(|topic| topic.partitions);
        let data = partitions.into_iter().next().ok_or_else(|| missing(topic, partition))?;
        let aborted = data.aborted_transactions.into_iter().flatten();
        let aborted = aborted
            .map(|t| AbortedTransaction { producer_id: t.producer_id.0, from: t.first_offset });
        let aborted = match isolation {
            Isolation::ReadCommitted => aborted.collect(),
            Isolation::ReadUncommitted => Vec::new(),
        };
        let bytes = data.records.unwrap_or_default();
        let read = read_batches(bytes, offset, aborted).map_err(|what| Error::Protocol {
            address: format!("partition {partition} of topic {topic}").into(),
            what,
        })?;
        let end_offset = match isolation {
            // Brokers without transactions (before 0.11) return -1.
            Isolation::ReadCommitted if data.last_stable_offset >= 0 => data.last_stable_offset,
            _ => data.high_watermark,
        };
        let ReadBatches { records, ends, next_offset } = read;
        Ok(Fetched { records, ends, next_offset, end_offset })
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
        what: "the response lacks this partition".into(),
    }
}
