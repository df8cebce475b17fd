//! Reads a topic from its beginning to its current end, one partition after another.
//!
//! The reader joins no group and commits nothing, so it disturbs nobody. Asking for a topic never
//! creates it.

use std::{ops::Range, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerContext, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};
use slog::Logger;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    KafkaSettings,
    client::client_config,
    errors::{as_relay_error, code_error, kafka_error, lacks_right},
    reports::Reports,
    unobserved,
};
use crate::{Error, ErrorKind, Result};

/// Of one question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Of silence while there is more to read: longer than a broker takes to come back.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Limit for reading ahead; a single record may be larger.
const READ_AHEAD_KBYTES: &str = "8192";

/// Isolation level for transactions.
#[derive(Clone, Copy)]
pub(crate) enum Isolation {
    /// Reads only committed records.
    ReadCommitted,
    /// Also what may still be undone.
    ReadUncommitted,
}

/// A topic that exists.
pub(crate) struct TopicReader {
    consumer: Arc<StreamConsumer<Reports>>,
    topic: String,
    brokers: String,
    partitions: Vec<i32>,
}

impl ConsumerContext for Reports {}

impl TopicReader {
    /// Looks the topic up; none when there is no such topic.
    pub async fn open(
        settings: &KafkaSettings,
        topic: &str,
        isolation: Isolation,
        log: Logger,
    ) -> Result<Option<Self>> {
        let client = consumer_config(settings, isolation);
        let reports = Reports::new(&client, unobserved(), log);
        let consumer: StreamConsumer<Reports> = client
            .create_with_context(reports)
            .map_err(|error| kafka_error("cannot create the Kafka client", error))?;
        let mut reader = TopicReader {
            consumer: Arc::new(consumer),
            topic: topic.to_owned(),
            brokers: settings.brokers.join(","),
            partitions: Vec::new(),
        };
        let name = reader.topic.clone();
        let metadata = reader
            .ask(move |consumer| consumer.fetch_metadata(Some(&name), REQUEST_TIMEOUT))
            .await?;
        let Some(found) = metadata.topics().first() else { return Ok(None) };
        match found.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
            // A partition without a leader is waited for when it is read.
            None | Some(Code::LeaderNotAvailable) => {}
            Some(code) => {
                let failed = code_error(format!("cannot look up topic {topic}"), code);
                return Err(as_relay_error(failed));
            }
        }
        reader.partitions = found.partitions().iter().map(|partition| partition.id()).collect();
        reader.partitions.sort_unstable();
        Ok(Some(reader))
    }

    /// Its partitions, in their order.
    pub fn partitions(&self) -> &[i32] {
        &self.partitions
    }

    /// The offsets that a partition has now.
    pub async fn offsets(&self, partition: i32) -> Result<Range<i64>> {
        let topic = self.topic.clone();
        let asked = move |consumer: &StreamConsumer<Reports>| {
            consumer.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT)
        };
        self.ask(asked).await.map(|(low, high)| low..high)
    }

    /// From now on, [`next`](Self::next) gives this partition's records from `offset` on.
    pub fn seek(&self, partition: i32, offset: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| self.unreadable(error))
    }

    /// The partition's next record before the offset `end`; none when there is none.
    pub async fn next(&self, partition: i32, end: i64) -> Result<Option<BorrowedMessage<'_>>> {
        loop {
            let Ok(received) = timeout(SILENCE_LIMIT, self.consumer.recv()).await else {
                let what = format!("topic {} gives no record in {SILENCE_LIMIT:?}", self.topic);
                return Err(match self.consumer.context().trouble() {
                    Some(trouble) => trouble.into_error(what),
                    None => Error::new(ErrorKind::KafkaUnavailable, what),
                });
            };
            match received {
                Ok(record) if record.partition() != partition => {}
                Ok(record) if record.offset() >= end => return Ok(None),
                Ok(record) => return Ok(Some(record)),
                Err(KafkaError::PartitionEOF(ended)) if ended == partition => return Ok(None),
                Err(error) if !is_repaired_by_client(&error) => return Err(self.unreadable(error)),
                Err(_) => {}
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&StreamConsumer<Reports>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T> {
        let consumer = Arc::clone(&self.consumer);
        let what = || format!("cannot reach Kafka at {}", self.brokers);
        match spawn_blocking(move || question(&consumer)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                // The error that made the request time out says more than the time-out; a
                // consumer hears of it only when it is asked for records.
                let _ = timeout(Duration::from_millis(100), self.consumer.recv()).await;
                match self.consumer.context().trouble() {
                    Some(trouble) => Err(trouble.into_error(what())),
                    None => Err(kafka_error(what(), error)),
                }
            }
            Err(error) => Err(Error::new(ErrorKind::KafkaUnavailable, what()).caused_by(error)),
        }
    }

    fn unreadable(&self, error: KafkaError) -> Error {
        let failed = kafka_error(format!("cannot read topic {}", self.topic), error);
        match lacks_right(&failed) {
            true => as_relay_error(failed).remedy("the user needs the ACLs Describe and Read"),
            false => failed,
        }
    }
}

fn consumer_config(settings: &KafkaSettings, isolation: Isolation) -> ClientConfig {
    let isolation = match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    };
    let mut client = client_config(settings);
    client
        // Without a name librdkafka assigns nothing; it is never joined.
        .set("group.id", "factlib")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "earliest")
        // That there is nothing more is an answer to wait for.
        .set("fetch.wait.max.ms", "20")
        .set("queued.max.messages.kbytes", READ_AHEAD_KBYTES);
    client
}

/// True for what librdkafka reports and goes on to repair by itself, and for what
/// only a group would need.
fn is_repaired_by_client(error: &KafkaError) -> bool {
    use Code::{
        AllBrokersDown, BrokerTransportFailure, GroupAuthorizationFailed, OperationTimedOut,
        Resolve,
    };
    match error {
        KafkaError::PartitionEOF(_) => true,
        _ => matches!(
            error.rdkafka_error_code(),
            Some(
                BrokerTransportFailure
                    | AllBrokersDown
                    | OperationTimedOut
                    | Resolve
                    | GroupAuthorizationFailed
            )
        ),
    }
}
