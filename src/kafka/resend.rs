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
    pipelined::{AfterRefusal, ClientThread, PipelinedClient, PipelinedTopic},
};
use crate::{
    Error, ErrorKind, Result,
    faults::Faults,
    record::{Answer, PartProgress, Record, RecordBatch, Records},
};

/// Memory for a record beside its bytes, with the usual headers.
pub(crate) const RECORD_OVERHEAD: usize = 512;

/// Time for a topic that was just created to be known to every broker.
const NEW_TOPIC_TIME: Duration = Duration::from_secs(10);

/// Pause before a topic that was just created is opened again.
const NEW_TOPIC_PAUSE: Duration = Duration::from_millis(100);

/// Sends records, many at a time.
pub(crate) struct ResendClient {
    admin: TopicAdmin,
    client: PipelinedClient,
    topics: HashMap<String, PipelinedTopic>,
    after_refusal: AfterRefusal,
    trouble: Arc<LastTrouble>,
}

/// Records in flight.
pub(crate) struct InFlightRecords(oneshot::Receiver<Answer>);

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
            after_refusal: AfterRefusal::Continue,
            trouble,
        })
    }

    /// From now on, sends nothing behind a refused record; its topic has to be opened again.
    pub fn stop_at_refusals(&mut self) {
        if self.after_refusal != AfterRefusal::Hold {
            self.after_refusal = AfterRefusal::Hold;
            self.topics.clear();
        }
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
        self.topics.insert(topic.to_owned(), opened.after_refusal(self.after_refusal));
        Ok(())
    }

    /// Sends records to an open topic, in order; errors call each by its name.
    pub fn send(&self, topic: &str, records: Vec<(Record, String)>) -> InFlightRecords {
        let (answered, answer) = oneshot::channel();
        if let Some(opened) = self.topics.get(topic) {
            opened.send(RecordBatch {
                records: Arc::new(NamedRecords { topic: topic.into(), records }),
                places: None,
                answer: Box::new(move |answer| {
                    let _ = answered.send(answer);
                }),
            });
        }
        InFlightRecords(answer)
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

impl InFlightRecords {
    /// Waits until all are acknowledged. Cancel-safe.
    ///
    /// # Errors
    /// The first that was refused, or the topic can't be had.
    pub async fn acknowledged(&mut self) -> Result<()> {
        match self.answer().await {
            Answer::Delivered => Ok(()),
            Answer::Failed(error, _) => Err(error),
            Answer::Refused(refused) => {
                refused.into_iter().next().map_or(Ok(()), |refused| Err(refused.error))
            }
        }
    }

    /// Waits until all have ended. Cancel-safe.
    pub async fn answer(&mut self) -> Answer {
        (&mut self.0).await.unwrap_or_else(|_| {
            let what = "the thread of the Kafka client has ended";
            Answer::Failed(Error::new(ErrorKind::ActorFailed, what), PartProgress::default())
        })
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

/// Records that are made already, each with its name.
struct NamedRecords {
    topic: Arc<str>,
    records: Vec<(Record, String)>,
}

impl Records for NamedRecords {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn record(&self, index: usize) -> Result<Record> {
        let named = self.records.get(index);
        let missing = || Error::new(ErrorKind::ActorFailed, "there is no such event");
        named.map(|(record, _)| record.clone()).ok_or_else(missing)
    }

    fn describe(&self, index: usize) -> String {
        self.records.get(index).map(|(_, name)| name.clone()).unwrap_or_default()
    }

    #[cfg(feature = "client-kafka")]
    fn own_header(&self, _: usize, _: &Record) -> Option<String> {
        None
    }
}
