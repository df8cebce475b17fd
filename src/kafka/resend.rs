//! Sends records again outside of a pipeline, for replays and redriven dead letters.
//!
//! Missing topics are created, as in the relay, and each topic is opened once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use slog::Logger;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    KafkaObserver, KafkaSettings,
    admin::TopicAdmin,
    pipelined::{ClientThread, PipelinedClient, PipelinedTopic},
};
use crate::{
    Error, ErrorKind, Result,
    faults::Faults,
    record::{Answer, Record, RecordBatch, Records},
};

/// Memory for a record beside its bytes, with the usual headers.
pub(crate) const RECORD_OVERHEAD: usize = 512;

/// Time for a topic that was just created to be known to every broker.
const NEW_TOPIC_TIME: Duration = Duration::from_secs(10);

/// Pause before a topic that was just created is opened again.
const NEW_TOPIC_PAUSE: Duration = Duration::from_millis(100);

/// Sends single records, many at a time.
pub(crate) struct ResendClient {
    admin: TopicAdmin,
    client: PipelinedClient,
    topics: HashMap<String, PipelinedTopic>,
    trouble: Arc<LastTrouble>,
}

/// A record in flight.
pub(crate) struct InFlightRecord(oneshot::Receiver<Answer>);

impl ResendClient {
    /// Creates a client, which connects later.
    ///
    /// # Errors
    /// Settings that the client does not take.
    pub fn new(kafka: &KafkaSettings, log: &Logger) -> Result<Self> {
        let trouble = Arc::<LastTrouble>::default();
        Ok(ResendClient {
            admin: TopicAdmin::new(kafka)?,
            client: PipelinedClient::start(kafka, ClientThread::Own, trouble.clone(), log.clone())?,
            topics: HashMap::new(),
            trouble,
        })
    }

    /// True before the first topic is open.
    pub fn is_unused(&self) -> bool {
        self.topics.is_empty()
    }

    /// Opens a topic, and creates it if it is missing; does nothing if it is open.
    ///
    /// # Errors
    /// A topic that can't be sent to.
    pub async fn open(&mut self, topic: &str) -> Result<()> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        let prepared = self.admin.prepare(topic).await?;
        let (name, began) = (Arc::from(topic), Instant::now());
        let opened = loop {
            let faults = Faults::default();
            let opening = self.client.open(&name, prepared.batch_bytes, faults);
            match opening.await {
                Err(error)
                    if prepared.created
                        && error.kind() == ErrorKind::TopicUnavailable
                        && began.elapsed() < NEW_TOPIC_TIME =>
                {
                    sleep(NEW_TOPIC_PAUSE).await;
                }
                opened => break opened?,
            }
        };
        self.topics.insert(topic.to_owned(), opened);
        Ok(())
    }

    /// Sends a record to an open topic; errors call it `name`.
    pub fn send(&self, topic: &str, record: Record, name: String) -> InFlightRecord {
        let (answered, answer) = oneshot::channel();
        if let Some(opened) = self.topics.get(topic) {
            opened.send(RecordBatch {
                records: Arc::new(SingleRecord { topic: topic.into(), record, name }),
                places: None,
                answer: Box::new(move |answer| {
                    let _ = answered.send(answer);
                }),
            });
        }
        InFlightRecord(answer)
    }

    /// Closes a topic: what was not acknowledged fails with `error`, and is not sent any more.
    pub fn close(&mut self, topic: &str, error: Error) {
        if let Some(topic) = self.topics.remove(topic) {
            topic.fail(error);
        }
    }

    /// Forgets a topic that has failed, so that it is opened again.
    pub fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// The last trouble with the brokers.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl InFlightRecord {
    /// Waits until Kafka has acknowledged the record. Cancel-safe.
    ///
    /// # Errors
    /// The record was refused, or its topic can't be had.
    pub async fn acknowledged(&mut self) -> Result<()> {
        match (&mut self.0).await {
            Ok(Answer::Delivered) => Ok(()),
            Ok(Answer::Failed(error, _)) => Err(error),
            Ok(Answer::Refused(refused)) => match refused.into_iter().next() {
                Some(refused) => Err(refused.error),
                None => Ok(()),
            },
            Err(_) => {
                Err(Error::new(ErrorKind::ActorFailed, "the thread of the Kafka client has ended"))
            }
        }
    }
}

/// The last trouble that a client reported.
#[derive(Default)]
struct LastTrouble(Mutex<Option<String>>);

impl KafkaObserver for LastTrouble {
    fn kafka_trouble(&self, error: String) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        true
    }
}

/// One record that is made already.
struct SingleRecord {
    topic: Arc<str>,
    record: Record,
    name: String,
}

impl Records for SingleRecord {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    fn len(&self) -> usize {
        1
    }

    fn record(&self, _: usize) -> Result<Record> {
        Ok(self.record.clone())
    }

    fn describe(&self, _: usize) -> String {
        self.name.clone()
    }

    #[cfg(feature = "client-kafka")]
    fn own_header(&self, _: usize, _: &Record) -> Option<String> {
        None
    }
}
