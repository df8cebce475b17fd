//! Consumes the demo's topics and records each arrival in the ledger.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use factlib::{Error, ErrorKind, Result, proto::OutboxEvent};
use factlib_kafka::{
    Client, Error as KafkaError, Settings,
    client::{FetchedRecord, Isolation},
};
use prost::Message as _;
use tokio::{sync::watch, task::JoinSet};

use super::{SharedLedger, broker::PARTITIONS, ledger::Arrival};

/// Time that a fetch waits for records, and so the time to notice the end of the demo.
const WAIT: Duration = Duration::from_millis(200);

/// Time for which a client tries a request again by itself while the broker is away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Readers, one for each partition.
pub struct Consumer {
    stop: watch::Sender<bool>,
    readers: JoinSet<Result<()>>,
}

impl Consumer {
    /// Consumes these topics from their start; returns once every partition has answered.
    pub async fn start(
        settings: &Settings,
        topics: &[String],
        ledger: SharedLedger,
    ) -> Result<Self> {
        let mut settings = settings.clone();
        settings.client_id = "factlib-demo".into();
        settings.request_timeout = REQUEST_TIMEOUT;
        let mut consumer = Consumer { stop: watch::Sender::new(false), readers: JoinSet::new() };
        for topic in topics {
            for partition in 0..PARTITIONS {
                let reader = Reader {
                    // A broker answers the requests of a connection one after the other, so a
                    // fetch that waits would delay the others.
                    client: Client::new(settings.clone()),
                    topic: topic.as_str().into(),
                    partition,
                    ledger: ledger.clone(),
                    stopped: consumer.stop.subscribe(),
                };
                let offsets = reader.client.offsets(topic, partition, Isolation::ReadCommitted);
                let begin = offsets.await.map_err(failed)?.start;
                consumer.readers.spawn(reader.read(begin));
            }
        }
        Ok(consumer)
    }

    /// Reads the remaining records, and ends.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        let panicked = || Error::new(ErrorKind::ActorFailed, "the consumer panicked");
        let mut outcome = Ok(());
        while let Some(ended) = self.readers.join_next().await {
            outcome = outcome.and(ended.unwrap_or_else(|_| Err(panicked())));
        }
        outcome
    }
}

struct Reader {
    client: Client,
    topic: Arc<str>,
    partition: i32,
    ledger: SharedLedger,
    stopped: watch::Receiver<bool>,
}

impl Reader {
    async fn read(self, mut offset: i64) -> Result<()> {
        let Reader { client, topic, partition, ledger, stopped } = self;
        loop {
            let is_stopped = *stopped.borrow();
            let fetching = client.fetch(&topic, partition, offset, Isolation::ReadCommitted, WAIT);
            match fetching.await {
                Ok(fetched) => {
                    let now = Instant::now();
                    for record in &fetched.records {
                        let event = record.value.as_deref().map(OutboxEvent::decode);
                        let event = event.and_then(Result::ok);
                        let arrival = event.as_ref().map(|event| arrival(&topic, record, event));
                        ledger.lock().arrived(arrival, now);
                    }
                    if is_stopped && fetched.next_offset == offset {
                        return Ok(());
                    }
                    offset = fetched.next_offset;
                }
                Err(error) if !is_transient(&error) => return Err(failed(error)),
                Err(_) if is_stopped => return Ok(()),
                Err(_) => {}
            }
        }
    }
}

fn arrival<'a>(topic: &'a str, record: &'a FetchedRecord, event: &'a OutboxEvent) -> Arrival<'a> {
    Arrival { topic, key: record.key.as_deref().unwrap_or_default(), event }
}

/// True while the broker is away, or was stopped just when the client had connected.
fn is_transient(error: &KafkaError) -> bool {
    use KafkaError::{Connection, HungUp, TimedOut, WantsLogin};
    matches!(error, Connection { .. } | HungUp { .. } | TimedOut { .. } | WantsLogin { .. })
}

fn failed(error: KafkaError) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, "cannot read the topics back").caused_by(error)
}
