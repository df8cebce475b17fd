//! Consumes the demo's topics on its own thread and records each arrival in the ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use factlib::{Error, ErrorKind, Result, proto::OutboxEvent};
use prost::Message as _;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::oneshot;

use super::{SharedLedger, broker::PARTITIONS, ledger::Arrival};

/// Time without a record after which none is left; the broker is in this process.
const IDLE: Duration = Duration::from_millis(500);

/// The consuming thread.
pub struct Consumer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Consumer {
    /// Consumes these topics from their start; returns once it has reached their end.
    pub async fn start(bootstrap: &str, topics: &[String], ledger: SharedLedger) -> Result<Self> {
        let consumer = assigned(bootstrap, topics).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = oneshot::channel();
        let partitions = topics.len() * PARTITIONS as usize;
        let thread = thread::spawn(move || {
            let mut ends = PartitionEnds { left: partitions, ready: Some(ready) };
            consume(&consumer, &ledger, &stopped, &mut ends)
        });
        let mut consumer = Consumer { stop, thread: Some(thread) };
        match is_ready.await {
            Ok(()) => Ok(consumer),
            // The thread has ended; stopping it returns its error.
            Err(_) => consumer.stop().map(|()| consumer),
        }
    }

    /// Reads the remaining records, and ends.
    pub fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = || Error::new(ErrorKind::ActorFailed, "the consumer panicked");
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| panicked())?,
            None => Ok(()),
        }
    }
}

fn assigned(bootstrap: &str, topics: &[String]) -> Result<BaseConsumer, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "factlib-demo")
        .set("enable.auto.commit", "false")
        // The mock answers a fetch only after this wait, even if a record arrives sooner, which
        // would count as the relay's latency.
        .set("fetch.wait.max.ms", "1")
        .set("enable.partition.eof", "true")
        // After a restart of the broker, records should appear soon.
        .set("reconnect.backoff.max.ms", "500")
        .create()?;
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Signals when the end of every partition was reached.
struct PartitionEnds {
    left: usize,
    ready: Option<oneshot::Sender<()>>,
}

impl PartitionEnds {
    fn reached(&mut self) {
        self.left = self.left.saturating_sub(1);
        if let Some(ready) = self.ready.take_if(|_| self.left == 0) {
            // The receiver may be gone.
            let _ = ready.send(());
        }
    }
}

fn consume(
    consumer: &BaseConsumer,
    ledger: &SharedLedger,
    stop: &AtomicBool,
    ends: &mut PartitionEnds,
) -> Result<()> {
    loop {
        match consumer.poll(IDLE) {
            Some(Ok(message)) => {
                let now = Instant::now();
                let event = message.payload().map(OutboxEvent::decode).and_then(Result::ok);
                ledger.lock().arrived(event.as_ref().map(|event| arrival(&message, event)), now);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ends.reached(),
            Some(Err(error)) if !is_transient(&error) => return Err(failed(error)),
            None if stop.load(Ordering::Relaxed) => return Ok(()),
            Some(Err(_)) | None => {}
        }
    }
}

fn arrival<'a>(message: &'a BorrowedMessage<'_>, event: &'a OutboxEvent) -> Arrival<'a> {
    Arrival { topic: message.topic(), key: message.key().unwrap_or_default(), event }
}

/// True for errors that librdkafka reports and recovers from by itself.
fn is_transient(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(error.rdkafka_error_code(), Some(BrokerTransportFailure | AllBrokersDown))
}

fn failed(error: KafkaError) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, "cannot read the topics back").caused_by(error)
}
