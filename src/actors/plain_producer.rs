//! PlainProducer: the records of one topic into Kafka, by the crate `kafka`.
//!
//! # Life
//! Made by [`PlainLanes`] as a TopicProducer is by its lanes, each with a thread, which outlives
//! it by the request that is under way. The next one of the topic waits for that.
//!
//! # Backpressure
//! None of its own: a batch that waits for the thread holds its bytes of the window.
//!
//! # Failure
//! See [`delivery`](crate::kafka::plain). Dead letters say in headers what they were
//! refused for, which this client can't send: they go to their table.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::{Actor, Context, Handler, Recipient};
use async_trait::async_trait;
use slog::Logger;

use super::{
    lane::{LaneContext, Lanes},
    without_kafka::TableLanes,
};
use crate::{
    Result,
    config::Config,
    faults::{FaultSite, Faults},
    kafka::plain::{self, Connection, Delivery, Thread},
    messages::{ExitGuard, TopicBatch},
    status::Status,
};

/// Opens lanes to Kafka by the crate `kafka`.
pub(crate) struct PlainLanes {
    config: Arc<Config>,
    dead_letters: (String, TableLanes),
    /// Who has a topic's place may send to it.
    places: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
    status: Arc<Status>,
    faults: Faults,
    log: Logger,
}

impl PlainLanes {
    pub fn new(
        config: Arc<Config>,
        dead_letters: TableLanes,
        status: Arc<Status>,
        faults: Faults,
        log: Logger,
    ) -> Self {
        let dead_letters = (config.dead_letter_topic(), dead_letters);
        PlainLanes { config, dead_letters, places: Mutex::default(), status, faults, log }
    }

    fn place(&self, topic: &Arc<str>) -> Arc<tokio::sync::Mutex<()>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(Arc::clone(topic)).or_default())
    }
}

#[async_trait]
impl Lanes for PlainLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let (dead_letter_topic, table) = &self.dead_letters;
        if *lane.topic == **dead_letter_topic {
            return table.open(lane).await;
        }
        let place = self.place(&lane.topic).lock_owned().await;
        let (config, topic) = (self.config.kafka.clone(), Arc::clone(&lane.topic));
        let connection = plain::blocking(move || {
            let mut connection = Connection::open(&config, &topic, 0)?;
            connection.partitions()?;
            Ok(connection)
        });
        let thread = Thread::start(Delivery {
            connection: Some(connection.await?),
            config: self.config.kafka.clone(),
            topic: lane.topic,
            status: Arc::clone(&self.status),
            faults: self.faults.clone(),
            log: self.log.clone(),
            _place: place,
        })?;
        let faults = self.faults.clone();
        Ok(PlainProducer { thread, faults, _exit: lane.exit }.start().recipient())
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        plain::check(self.config.kafka.brokers.clone(), timeout).await
    }
}

/// One topic's way into Kafka.
struct PlainProducer {
    thread: Thread,
    faults: Faults,
    _exit: ExitGuard,
}

impl Actor for PlainProducer {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for PlainProducer {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        self.faults.reach(FaultSite::TopicProducer);
        self.thread.send(batch);
    }
}
