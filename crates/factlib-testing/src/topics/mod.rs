//! Topics of a Kafka: creates, lists and reads them.
//!
//! Reading commits no offsets and joins no group, so it disturbs no other consumer. librdkafka's
//! calls block; they run on tokio's blocking threads, each with a time limit.

mod create;
mod read;

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tokio::task::spawn_blocking;

pub(crate) use self::create::await_broker;
pub use self::{
    create::{create_topic, topic_names},
    read::{ConsumedRecord, each_record, read_topic, wait_for_count},
};
use crate::{Error, ErrorKind, Result};

/// Time limit for one answer of a running server.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Interval of polling metadata: no event signals a change, and a request is cheap.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|cause| {
        Error::new(ErrorKind::Panicked, "reading from Kafka panicked").caused_by(cause)
    })?
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        // The servers are local, and a test waits for one that starts.
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

fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, what)
}

fn late(what: String, limit: Duration) -> Error {
    unavailable(format!("{what} after {limit:?}"))
}
