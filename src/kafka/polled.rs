//! A producer and the thread that takes its delivery reports.
//!
//! rust-rdkafka's own `ThreadedProducer` wakes ten times a second and spins for part of a
//! millisecond each time, which wastes half a percent of a core.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, KafkaResult},
    producer::{BaseProducer, Producer, ProducerContext, PurgeConfig},
};

/// Reports wake the thread; without any, it looks so often whether it is still wanted.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Between two purges of a client that gave up and has records left.
const PURGE_INTERVAL: Duration = Duration::from_millis(20);

/// The producer; a clone is the same one. With the last, what it holds is given up.
pub(super) struct PolledProducer<C: ProducerContext + 'static>(Arc<Handle<C>>);

struct Handle<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    unwanted: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> PolledProducer<C> {
    pub fn new(settings: &ClientConfig, context: C) -> KafkaResult<Self> {
        let producer: Arc<BaseProducer<C>> = Arc::new(settings.create_with_context(context)?);
        let unwanted = Arc::new(AtomicBool::new(false));
        let (polled, ended) = (Arc::clone(&producer), Arc::clone(&unwanted));
        let poll = move || {
            while !ended.load(Ordering::Acquire) {
                let gave_up = polled.client().fatal_error().is_some();
                if gave_up && polled.in_flight_count() > 0 {
                    // librdkafka purges its queue as it gives up. A record that is queued at that
                    // very moment stays there, and would never have a report.
                    polled.purge(PurgeConfig::default().queue());
                    polled.poll(PURGE_INTERVAL);
                } else {
                    polled.poll(LOOK_INTERVAL);
                }
            }
        };
        let thread = thread::Builder::new().name("kafka-reports".into()).spawn(poll);
        thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(PolledProducer(Arc::new(Handle { producer, unwanted })))
    }
}

impl<C: ProducerContext + 'static> Clone for PolledProducer<C> {
    fn clone(&self) -> Self {
        PolledProducer(Arc::clone(&self.0))
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.0.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Handle<C> {
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Release);
        // Its report wakes the thread, if there was anything.
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}
