//! Single records: each is sent by itself, and waited for.

use std::sync::{Arc, Mutex, PoisonError};

use factlib_kafka::{Receipt, Refusal, Topic};
use tokio::sync::oneshot;

use super::{
    errors,
    reports::TopicState,
    topic::{client_record, now_ms},
};
use crate::{Error, ErrorKind, Result, record::Record};

/// A topic that takes single records.
pub(crate) struct SingleTopic {
    topic: Topic,
    state: Arc<TopicState>,
}

/// A record that was sent.
pub(crate) struct SentRecord {
    answer: oneshot::Receiver<Result<(), Refusal>>,
    topic: Topic,
    state: Arc<TopicState>,
    record: Record,
    name: String,
}

impl SingleTopic {
    pub(super) fn new(topic: Topic, state: Arc<TopicState>) -> Self {
        SingleTopic { topic, state }
    }

    /// Sends a record; errors call it `name`.
    ///
    /// # Errors
    /// The topic does not have the record's partition, or it was closed.
    pub fn send(&self, record: Record, name: String) -> Result<SentRecord> {
        let (answered, answer) = oneshot::channel();
        let receipt: Arc<dyn Receipt> = Arc::new(SingleReceipt(Mutex::new(Some(answered))));
        let mut sending = self.topic.begin();
        let borrowed = record.borrowed();
        let pushed =
            sending.push(&client_record(&borrowed, now_ms()), record.partition, &receipt, 0);
        drop((sending, borrowed));
        if let Err(error) = pushed {
            let what = format!("cannot send {name} to topic {}", self.topic.name());
            return Err(Error::new(ErrorKind::TopicUnavailable, what).caused_by(error));
        }
        let (topic, state) = (self.topic.clone(), Arc::clone(&self.state));
        Ok(SentRecord { answer, topic, state, record, name })
    }
}

impl SentRecord {
    /// Waits until Kafka has acknowledged the record.
    ///
    /// # Errors
    /// The record was refused, or the brokers do not take records for its topic.
    pub async fn acknowledged(self) -> Result<()> {
        let SentRecord { answer, topic, state, record, name } = self;
        let answer = tokio::select! {
            answer = answer => answer.ok(),
            () = state.failed.notified() => None,
        };
        match answer {
            Some(Ok(())) => Ok(()),
            Some(Err(refusal)) => Err(errors::refused(topic.name(), &name, &record, &refusal)),
            None => Err(state.error().unwrap_or_else(|| {
                let what = format!("{name} was dropped without an answer");
                Error::new(ErrorKind::ActorFailed, what)
            })),
        }
    }
}

struct SingleReceipt(Mutex<Option<oneshot::Sender<Result<(), Refusal>>>>);

impl SingleReceipt {
    fn answer(&self, answer: Result<(), Refusal>) {
        let answered = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answered) = answered {
            let _ = answered.send(answer);
        }
    }
}

impl Receipt for SingleReceipt {
    fn acknowledged(&self, _: &[u32]) {
        self.answer(Ok(()));
    }

    fn refused(&self, _: u32, refusal: &Refusal) {
        self.answer(Err(refusal.clone()));
    }
}
