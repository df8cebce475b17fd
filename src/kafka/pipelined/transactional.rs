//! One session of transactions: a transactional producer, its topics, and
//! the failure that ends it.

use std::{sync::Arc, time::Duration};

use factlib_kafka::{Sealed, TransactionError, Transactional, TransactionalProducer};
use slog::Logger;
use tokio::sync::watch;

use super::{
    ClientThread, errors, reports::Reports, settings::client_settings, single::SingleTopic,
    topic::PipelinedTopic,
};
use crate::{
    Error, Result,
    faults::Faults,
    kafka::{
        KafkaObserver, KafkaSettings,
        in_flight::{InFlight, TopicsInFlight},
    },
};

/// The producer of one session. When it is dropped, its driver ends, and the batches of its topics
/// fail.
pub(crate) struct TransactionalClient {
    producer: TransactionalProducer,
    reports: Arc<Reports>,
    in_flight: TopicsInFlight,
    topic_failed: watch::Sender<Option<Error>>,
    faults: Faults,
}

/// Reason why a session has to end.
pub(crate) enum SessionFailure {
    /// Its transaction can't be committed.
    Transaction(TransactionError),
    /// The brokers do not take the records of a topic.
    Topic(Error),
}

impl TransactionalClient {
    /// Starts the client under this `transactional.id`. Call [`begin`](Self::begin) next.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a setting that the client does not take,
    /// [`ErrorKind::KafkaUnavailable`](crate::ErrorKind::KafkaUnavailable) if the system has no
    /// thread for it.
    pub fn start(
        settings: &KafkaSettings,
        (id, timeout): (&str, Duration),
        thread: &ClientThread,
        observer: Arc<dyn KafkaObserver>,
        faults: Faults,
        log: Logger,
    ) -> Result<Self> {
        let reports = Arc::new(Reports::new(observer, settings.statistics_interval, log));
        let mut settings = client_settings(settings)?;
        // A request that is lost without an answer must not cost the transaction.
        settings.request_timeout = settings.request_timeout.min(timeout / 2);
        let transactional = Transactional { id: id.to_owned(), timeout };
        let (producer, driver) =
            TransactionalProducer::new(settings, transactional, reports.clone());
        thread.run(driver, &reports)?;
        let topic_failed = watch::Sender::new(None);
        Ok(TransactionalClient {
            producer,
            reports,
            in_flight: TopicsInFlight::default(),
            topic_failed,
            faults,
        })
    }

    /// Fences every earlier producer with the id, waits until its transaction has ended, and opens
    /// the first transaction.
    ///
    /// # Errors
    /// [`TransactionError::Refused`]; brokers that are away are waited for.
    pub async fn begin(&self) -> Result<(), TransactionError> {
        self.producer.begin().await
    }

    /// The last trouble that the client reported.
    pub fn last_trouble(&self) -> Option<factlib_kafka::Error> {
        self.reports.last_trouble()
    }

    /// The count of a topic's batches in flight, including those of actors that have ended.
    pub fn in_flight(&self, topic: &Arc<str>) -> InFlight {
        self.in_flight.of(topic)
    }

    /// Opens an existing topic. `max_batch_bytes` is the topic's limit, if it is known.
    ///
    /// # Errors
    /// The reason why the topic can't be had; brokers that are away are waited for.
    pub async fn open(
        &self,
        topic: &Arc<str>,
        max_batch_bytes: Option<usize>,
    ) -> Result<PipelinedTopic> {
        let opened = self.producer.topic(Arc::clone(topic)).await;
        let opened = opened.map_err(|error| errors::not_opened(topic, error))?;
        if let Some(bytes) = max_batch_bytes {
            opened.limit_batches(bytes);
        }
        let state = self.reports.opened(topic);
        // A topic is not closed by itself: its records are in the transaction.
        let (failing, failed) = (self.topic_failed.clone(), Arc::clone(&state));
        let on_failure = async move {
            failing.send_replace(failed.error());
        };
        let (in_flight, faults) = (self.in_flight(topic), self.faults.clone());
        Ok(PipelinedTopic::new(on_failure, opened, state, in_flight, faults))
    }

    /// Opens an existing topic for single records.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_single(&self, topic: &Arc<str>) -> Result<SingleTopic> {
        let opened = self.producer.topic(Arc::clone(topic)).await;
        let opened = opened.map_err(|error| errors::not_opened(topic, error))?;
        Ok(SingleTopic::new(opened, self.reports.opened(topic)))
    }

    /// Closes the open transaction: records that are sent from now on belong to the next one.
    pub fn seal(&self) -> Sealed {
        self.producer.seal()
    }

    /// Commits a transaction.
    ///
    /// # Errors
    /// The reason why it can't be committed; the session is over then.
    pub async fn commit(&self, sealed: Sealed) -> Result<(), TransactionError> {
        self.producer.commit(sealed).await
    }

    /// Waits until the session has to end.
    pub async fn failed(&self) -> SessionFailure {
        let mut topic_failed = self.topic_failed.subscribe();
        let of_topic = async move {
            match topic_failed.wait_for(Option::is_some).await.ok().and_then(|error| error.clone())
            {
                Some(error) => error,
                // The sender is part of self.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = self.producer.failed() => SessionFailure::Transaction(error),
            error = of_topic => SessionFailure::Topic(error),
        }
    }
}
