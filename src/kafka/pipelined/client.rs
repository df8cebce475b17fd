//! The producer of a pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use factlib_kafka::{Producer, Settings};
use slog::Logger;

use super::{
    ClientThread, errors, reports::Reports, settings::client_settings, single::SingleTopic,
    topic::PipelinedTopic,
};
use crate::{
    Result,
    faults::Faults,
    kafka::{
        KafkaObserver, KafkaSettings,
        in_flight::{InFlight, TopicsInFlight},
    },
    record::Record,
};

/// One idempotent producer, shared by all topics. Its driver ends when it and its topics are gone
/// and everything that was sent has ended.
pub(crate) struct PipelinedClient {
    settings: Settings,
    thread: ClientThread,
    producer: Mutex<Producer>,
    reports: Arc<Reports>,
    in_flight: TopicsInFlight,
}

impl PipelinedClient {
    /// Starts the client; it connects when the first topic is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting that the client does not take,
    /// [`ErrorKind::KafkaUnavailable`] if the system has no thread for it.
    pub fn start(
        settings: &KafkaSettings,
        thread: ClientThread,
        observer: Arc<dyn KafkaObserver>,
        log: Logger,
    ) -> Result<Self> {
        let reports = Arc::new(Reports::new(observer, settings.statistics_interval, log));
        let settings = client_settings(settings)?;
        let producer = Mutex::new(start_producer(&settings, &thread, &reports)?);
        let in_flight = TopicsInFlight::default();
        Ok(PipelinedClient { settings, thread, producer, reports, in_flight })
    }

    fn producer(&self) -> Producer {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another producer in the place of one whose thread has ended.
    fn restart(&self) -> Result<Producer> {
        let producer = start_producer(&self.settings, &self.thread, &self.reports)?;
        *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = producer.clone();
        Ok(producer)
    }

    /// The count of a topic's batches in flight, including those of actors that have ended.
    pub fn in_flight(&self, topic: &Arc<str>) -> InFlight {
        self.in_flight.of(topic)
    }

    /// Opens a topic, which has to be there. `max_batch_bytes` is what it takes, where that is
    /// known.
    ///
    /// # Errors
    /// The reason why the topic can't be had; brokers that are away are waited for.
    pub async fn open(
        &self,
        topic: &Arc<str>,
        max_batch_bytes: Option<usize>,
        faults: Faults,
    ) -> Result<PipelinedTopic> {
        let mut producer = self.producer();
        let mut opened = producer.topic(Arc::clone(topic)).await;
        if let Err(factlib_kafka::Error::Ended) = opened {
            producer = self.restart()?;
            opened = producer.topic(Arc::clone(topic)).await;
        }
        let opened = opened.map_err(|error| errors::not_opened(topic, error))?;
        if let Some(bytes) = max_batch_bytes {
            opened.limit_batches(bytes);
        }
        let state = self.reports.opened(topic);
        let own = opened.clone();
        let on_failure = async move { producer.close(&own).await };
        let in_flight = self.in_flight(topic);
        Ok(PipelinedTopic::new(on_failure, opened, state, in_flight, faults))
    }

    /// Sends a single record to an existing topic, and waits until Kafka has acknowledged it.
    /// Errors call the record `name`.
    ///
    /// # Errors
    /// The topic can't be had, or the record was refused; brokers that are away are waited for.
    pub async fn send_single(&self, topic: &Arc<str>, record: Record, name: String) -> Result<()> {
        let opened = self.producer().topic(Arc::clone(topic)).await;
        let opened = opened.map_err(|error| errors::not_opened(topic, error))?;
        let topic = SingleTopic::new(opened, self.reports.opened(topic));
        topic.send(record, name)?.acknowledged().await
    }
}

fn start_producer(
    settings: &Settings,
    thread: &ClientThread,
    reports: &Arc<Reports>,
) -> Result<Producer> {
    let (producer, driver) = Producer::new(settings.clone(), reports.clone());
    thread.run(driver, reports)?;
    Ok(producer)
}
