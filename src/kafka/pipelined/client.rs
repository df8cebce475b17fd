//! The producer of a pipeline, and the thread that it runs on.

use std::{sync::Arc, thread};

use factlib_kafka::Producer;
use slog::Logger;

use super::{reports::Reports, settings::client_settings, topic::PipelinedTopic};
use crate::{
    Error, ErrorKind, Result,
    faults::Faults,
    kafka::{KafkaObserver, KafkaSettings, in_flight::InFlight},
};

/// One idempotent producer, shared by all topics. Its thread ends when it and its topics are gone
/// and everything that was sent has ended.
pub(crate) struct PipelinedClient {
    producer: Producer,
    reports: Arc<Reports>,
}

impl PipelinedClient {
    /// Starts the client; it connects when the first topic is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a property that is no number, [`ErrorKind::KafkaUnavailable`]
    /// where the system has no thread for it.
    pub fn start(
        settings: &KafkaSettings,
        observer: Arc<dyn KafkaObserver>,
        log: Logger,
    ) -> Result<Self> {
        let reports = Arc::new(Reports::new(observer, settings.statistics_interval, log));
        let watching = Arc::clone(&reports);
        let (producer, driver) = Producer::new(client_settings(settings)?, watching);
        let failed = |error| {
            let what = "cannot start the thread of the Kafka client";
            Error::new(ErrorKind::KafkaUnavailable, what).caused_by(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let thread = thread::Builder::new().name("factlib-kafka".into());
        thread.spawn(move || runtime.block_on(driver)).map_err(failed)?;
        Ok(PipelinedClient { producer, reports })
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
        in_flight: InFlight,
        faults: Faults,
    ) -> Result<PipelinedTopic> {
        let opened = self.producer.topic(Arc::clone(topic)).await.map_err(|error| {
            super::errors::of_topic(topic, &error).unwrap_or_else(|| {
                let what = format!("cannot open topic {topic}");
                Error::new(ErrorKind::KafkaUnavailable, what).caused_by(error)
            })
        })?;
        if let Some(bytes) = max_batch_bytes {
            opened.limit_batches(bytes);
        }
        let state = self.reports.opened(topic);
        Ok(PipelinedTopic::new(self.producer.clone(), opened, state, in_flight, faults))
    }
}
