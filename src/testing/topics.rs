//! What is in Kafka: reading topics back, and making them.
//!
//! Reading commits nothing and joins no group, so it disturbs nobody. librdkafka's
//! calls block; they run on tokio's blocking threads, each under a limit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{Error, ErrorKind, Result};

/// For whatever needs one answer of a running server.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Records that may wait for whoever reads a topic.
const RECORDS_AHEAD: usize = 1024;
const POLL: Duration = Duration::from_millis(100);
/// Nothing signals that metadata has changed; asking is cheap.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// A record as a consumer gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumedRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970, if it has a time stamp.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In the order of the record; a header without a value counts as empty.
    pub headers: Vec<(String, Bytes)>,
}

impl ConsumedRecord {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn from_message(message: &BorrowedMessage<'_>) -> Self {
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
}

/// Reads a topic from its start to its present end: committed records, ordered inside a partition.
pub async fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<ConsumedRecord>> {
    let mut records = Vec::new();
    each_record(bootstrap, topic, |record| records.push(record)).await?;
    Ok(records)
}

/// As [`read_topic`], for topics that are too large to hold: gives one record after the other.
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
    // A large topic takes long; one that gives nothing for so long is stuck.
    let mut deadline = Instant::now() + ANSWER_LIMIT;
    let consumer = assigned(bootstrap, &[topic.to_owned()], deadline)?;
    let mut open = partitions(&consumer, topic)?;
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                deadline = Instant::now() + ANSWER_LIMIT;
                if to.blocking_send(ConsumedRecord::from_message(&message)).is_err() {
                    // Nobody wants the rest.
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|p| *p != partition),
            Some(Err(error)) if !passes(&error) => return Err(unreadable(topic, error)),
            Some(Err(_)) | None => {}
        }
        if Instant::now() > deadline {
            return Err(late(format!("cannot read topic {topic} to its end"), ANSWER_LIMIT));
        }
    }
    Ok(())
}

/// Reads topics from their start until they have given `count` records together, and gives these.
///
/// The topics need not exist yet. The error at the time limit says how many there were.
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
                Some(Ok(message)) => records.push(ConsumedRecord::from_message(&message)),
                Some(Err(error)) if !passes(&error) => {
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

/// Creates a topic with these topic settings and the broker's replication factor,
/// and waits until every partition has a leader.
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

/// The names of all topics, sorted, without Kafka's own.
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

/// Waits until the broker at `address` answers, by itself, and lists the brokers of these ids.
pub(super) async fn await_broker(address: String, ids: Vec<i32>, limit: Duration) -> Result<()> {
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|cause| {
        Error::new(ErrorKind::ActorFailed, "reading from Kafka panicked").caused_by(cause)
    })?
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        // The servers are near, and a test waits for one that comes up.
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200");
    config
}

fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    client(bootstrap)
        .set("group.id", "factlib-testing")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "20")
        .create()
        .map_err(|cause| unavailable("cannot make a consumer".into()).caused_by(cause))
}

/// A consumer at the start of all partitions of these topics, once they exist.
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

/// Waits until at least `count` partitions exist and all that do have a leader.
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

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer
        .fetch_metadata(Some(topic), ANSWER_LIMIT)
        .map_err(|cause| unreadable(topic, cause))?;
    Ok(metadata.topics().iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect())
}

/// True for what librdkafka reports and goes on to repair by itself, and for the end of a partition.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    match error {
        KafkaError::PartitionEOF(_) => true,
        _ => matches!(
            error.rdkafka_error_code(),
            Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut | Resolve)
        ),
    }
}

fn unreadable(topic: &str, cause: KafkaError) -> Error {
    unavailable(format!("cannot read topic {topic}")).caused_by(cause)
}

fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, what)
}

fn late(what: String, limit: Duration) -> Error {
    unavailable(format!("{what} after {limit:?}"))
}
