//! Reads the records of topics with librdkafka (feature `librdkafka`), as a second opinion in tests
//! of the client that the other reader is built on.
//!
//! librdkafka's calls block; they run on tokio's blocking threads, each with a time limit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{ANSWER_LIMIT, ConsumedRecord, PROBE_INTERVAL, late, unavailable, unreadable};
use crate::{Error, ErrorKind, Result};

/// Records that are read ahead of the caller of [`each_record`].
const RECORDS_AHEAD: usize = 1024;
const POLL: Duration = Duration::from_millis(100);

/// Reads a topic like [`read_topic`](super::read_topic) and calls `take` with each record, for topics that do not fit into
/// memory.
pub async fn each_record(
    bootstrap: &str,
    topic: &str,
    mut take: impl FnMut(ConsumedRecord),
) -> Result<()> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    let (sender, mut records) = mpsc::channel(RECORDS_AHEAD);
    let reading = blocking(move || read_to_end(&bootstrap, &topic, &sender));
    let taking = async {
        while let Some(record) = records.recv().await {
            take(record);
        }
    };
    tokio::join!(reading, taking).0
}

fn read_to_end(bootstrap: &str, topic: &str, to: &mpsc::Sender<ConsumedRecord>) -> Result<()> {
    // Each record extends the limit: a large topic takes long.
    let mut deadline = Instant::now() + ANSWER_LIMIT;
    let consumer = assigned(bootstrap, &[topic.to_owned()], deadline)?;
    let mut open = partitions(&consumer, topic)?;
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                deadline = Instant::now() + ANSWER_LIMIT;
                if to.blocking_send(record(&message)).is_err() {
                    // The receiver was dropped.
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|p| *p != partition),
            Some(Err(error)) if !is_transient(&error) => return Err(unreadable(topic, error)),
            Some(Err(_)) | None => {}
        }
        if Instant::now() > deadline {
            return Err(late(format!("cannot read topic {topic} to its end"), ANSWER_LIMIT));
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
    let bootstrap = bootstrap.to_owned();
    let topics: Vec<String> = topics.iter().map(|topic| topic.to_string()).collect();
    blocking(move || {
        let deadline = Instant::now() + limit;
        let consumer = assigned(&bootstrap, &topics, deadline)?;
        let mut records = Vec::new();
        while records.len() < count {
            match consumer.poll(POLL) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(error)) if !is_transient(&error) => {
                    return Err(unreadable(&topics.join(", "), error));
                }
                Some(Err(_)) | None => {}
            }
            if Instant::now() > deadline && records.len() < count {
                let (names, read) = (topics.join(", "), records.len());
                return Err(late(format!("{read} of {count} records in {names}"), limit));
            }
        }
        Ok(records)
    })
    .await
}

/// Waits for the topics and returns a consumer at the start of all of their partitions.
fn assigned(bootstrap: &str, topics: &[String], deadline: Instant) -> Result<BaseConsumer> {
    let consumer = consumer(bootstrap)?;
    let mut list = TopicPartitionList::new();
    for topic in topics {
        await_topic(&consumer, topic, 1, deadline)?;
        for partition in partitions(&consumer, topic)? {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .map_err(|cause| unreadable(topic, cause))?;
        }
    }
    consumer.assign(&list).map_err(|cause| unreadable(&topics.join(", "), cause))?;
    Ok(consumer)
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer
        .fetch_metadata(Some(topic), ANSWER_LIMIT)
        .map_err(|cause| unreadable(topic, cause))?;
    Ok(metadata.topics().iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect())
}

/// Returns true for errors from which librdkafka recovers by itself, and for the end of a partition.
fn is_transient(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    match error {
        KafkaError::PartitionEOF(_) => true,
        _ => matches!(
            error.rdkafka_error_code(),
            Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut | Resolve)
        ),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|cause| {
        Error::new(ErrorKind::Panicked, "reading from Kafka panicked").caused_by(cause)
    })?
}

fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // The servers are local, and a test waits for one that starts.
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("group.id", "factlib-testing")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "20")
        .create()
        .map_err(|cause| unavailable("cannot make a consumer".into()).caused_by(cause))
}

/// Waits until at least `count` partitions exist and each partition has a leader.
fn await_topic(
    consumer: &BaseConsumer,
    topic: &str,
    count: usize,
    deadline: Instant,
) -> Result<()> {
    loop {
        if let Ok(metadata) = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)) {
            let partitions = metadata.topics().first().map(|t| t.partitions()).unwrap_or_default();
            if partitions.len() >= count && partitions.iter().all(|p| p.leader() >= 0) {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            return Err(unavailable(format!("topic {topic} does not exist, or has no leader")));
        }
        std::thread::sleep(PROBE_INTERVAL);
    }
}

fn record(message: &BorrowedMessage<'_>) -> ConsumedRecord {
    let bytes = |slice: Option<&[u8]>| slice.map(Bytes::copy_from_slice);
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    ConsumedRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: bytes(message.key()),
        value: bytes(message.payload()),
        headers: headers
            .map(|header| (header.key.to_owned(), bytes(header.value).unwrap_or_default()))
            .collect(),
    }
}
