//! Reads the topics of a run: while they fill, on a thread of its own, or from start to end.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::testing::each_record;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

use super::event;
use crate::support::{Result, quantiles::now_ns, servers::Servers, topics::Topics};

/// Silence after which a topic is read to its end.
const SILENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(200);
/// Interval of looking whether all came.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A record, as the broker has it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Of the event.
    pub number: u64,
    /// The broker's time stamp: the topics are made with `LogAppendTime`.
    pub appended_ms: i64,
    /// When it was read, in Unix nanoseconds; of a transaction's, after the commit.
    pub received_ns: i64,
}

/// A reader of all topics of a run.
pub struct Follower {
    distinct: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    reading: JoinHandle<Result<Vec<Delivery>>>,
}

impl Follower {
    /// Reads from the start of the topics on.
    pub fn start(servers: &Servers, topics: &Topics, run: u64) -> Result<Self> {
        let consumer = consumer(servers, topics)?;
        let (distinct, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let reading = {
            let (distinct, stop) = (Arc::clone(&distinct), Arc::clone(&stop));
            spawn_blocking(move || read(&consumer, run, &distinct, &stop))
        };
        Ok(Follower { distinct, stop, reading })
    }

    /// Waits until so many different events came, or until none came for as long as `patience`; true
    /// for the former.
    pub async fn saw(&self, events: usize, patience: Duration) -> bool {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let now = self.distinct.load(Relaxed);
            if now >= events {
                return true;
            }
            if now > before {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > patience || self.reading.is_finished() {
                return false;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Reads to the present end and returns all records, in the order of their partition.
    pub async fn finish(self) -> Result<Vec<Delivery>> {
        self.stop.store(true, Relaxed);
        self.reading.await?
    }
}

/// Reads the topics from the start to their present end, and returns all records, in the order of
/// their partition.
///
/// A consumer that lived through the death of its broker is no witness of what the topics hold:
/// librdkafka has skipped records then.
pub async fn read_to_end(servers: &Servers, topics: &Topics, run: u64) -> Result<Vec<Delivery>> {
    let (mut records, mut foreign) = (Vec::new(), 0);
    for topic in topics.names() {
        each_record(&servers.kafka.admin_bootstrap(), &topic, |record| {
            let id = record.header("id").or_else(|| record.header("event_id"));
            let number = id.and_then(|id| event::number(run, id));
            match number.zip(record.timestamp_ms) {
                Some((number, appended_ms)) => {
                    records.push(Delivery { number, appended_ms, received_ns: now_ns() });
                }
                None => foreign += 1,
            }
        })
        .await?;
    }
    if foreign > 0 {
        return Err(format!("{foreign} records without an event's id").into());
    }
    Ok(records)
}

fn consumer(servers: &Servers, topics: &Topics) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers.kafka.admin_bootstrap())
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        // It would forget its only broker while that is away, which librdkafka 2.12 does not
        // always survive.
        .set("metadata.recovery.strategy", "none")
        .set("enable.metrics.push", "false")
        .set("group.id", "comparison")
        .set("enable.auto.commit", "false")
        // The default would skip records, should a broker that restarts not know an offset yet.
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut list = TopicPartitionList::new();
    for (topic, partition) in topics.partitions() {
        list.add_partition_offset(&topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn read(
    consumer: &BaseConsumer,
    run: u64,
    distinct: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<Vec<Delivery>> {
    let (mut records, mut seen) = (Vec::new(), HashSet::new());
    let mut last = std::time::Instant::now();
    while !stop.load(Relaxed) || last.elapsed() < SILENCE {
        // The broker may be away: the consumer goes on by itself.
        let Some(Ok(message)) = consumer.poll(POLL) else { continue };
        last = std::time::Instant::now();
        let delivery = delivery(&message, run)
            .ok_or_else(|| format!("a record of {} without an event's id", message.topic()))?;
        seen.insert(delivery.number);
        records.push(delivery);
        distinct.store(seen.len(), Relaxed);
    }
    Ok(records)
}

/// Debezium's event router calls the header `id`, factlib `event_id` or, with Debezium's conventions,
/// `id`.
fn delivery(message: &BorrowedMessage<'_>, run: u64) -> Option<Delivery> {
    let mut headers = message.headers()?.iter();
    let id = headers.find(|header| ["id", "event_id"].contains(&header.key))?.value?;
    let number = event::number(run, id)?;
    let appended_ms = message.timestamp().to_millis()?;
    Some(Delivery { number, appended_ms, received_ns: now_ns() })
}
