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
//! See [`delivery`](crate::kafka::plain); a schema registry that does not answer fails the
//! lane, as a TopicProducer's. Dead letters say in headers what they were
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
    prefix_queue::{PrefixQueue, SendsPrefixed},
    table_lanes::TableLanes,
};
use crate::{
    Result,
    actors::lane::{LaneContext, Lanes},
    config::Config,
    faults::{FaultSite, Faults},
    format::Prefixes,
    kafka::plain::{self, Connection, Delivery, Thread},
    messages::{ExitGuard, TopicBatch},
    schema_registry::Registry,
    status::Status,
};

/// Opens lanes to Kafka by the crate `kafka`.
pub(crate) struct PlainLanes {
    config: Arc<Config>,
    dead_letters: (String, TableLanes),
    /// For each topic, a lock that is held by the actor that may send to it.
    send_locks: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
    registry: Arc<Registry>,
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
    ) -> Result<Self> {
        let dead_letters = (config.dead_letter_topic(), dead_letters);
        let registry = Arc::new(Registry::new(&config)?);
        let send_locks = Mutex::default();
        Ok(PlainLanes { config, dead_letters, send_locks, registry, status, faults, log })
    }

    fn send_lock(&self, topic: &Arc<str>) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.send_locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(Arc::clone(topic)).or_default())
    }
}

#[async_trait]
impl Lanes for PlainLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let (dead_letter_topic, table) = &self.dead_letters;
        if *lane.topic == **dead_letter_topic {
            return table.open(lane).await;
        }
        let send_lock = self.send_lock(&lane.topic).lock_owned().await;
        self.registry.check_unanswered(&lane.topic).await?;
        let (config, topic) = (self.config.kafka.settings(), Arc::clone(&lane.topic));
        let connection = plain::blocking(move || {
            let mut connection = Connection::open(&config, &topic, 0)?;
            connection.partitions()?;
            Ok(connection)
        });
        let thread = Thread::start(Delivery {
            connection: Some(connection.await?),
            settings: self.config.kafka.settings(),
            topic: lane.topic,
            observer: self.status.clone(),
            faults: self.faults.clone(),
            log: self.log.clone(),
            _place: send_lock,
        })?;
        let prefix_queue = PrefixQueue::new(Arc::clone(&self.registry));
        let faults = self.faults.clone();
        Ok(PlainProducer { thread, prefix_queue, faults, _exit: lane.exit }.start().recipient())
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        plain::check(self.config.kafka.brokers.clone(), timeout).await
    }

    async fn is_back(&self) -> bool {
        plain::are_back(self.config.kafka.brokers.clone()).await
    }
}

/// The actor of one topic.
struct PlainProducer {
    thread: Thread,
    prefix_queue: PrefixQueue,
    faults: Faults,
    _exit: ExitGuard,
}

impl Actor for PlainProducer {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for PlainProducer {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::TopicProducer);
        self.enqueue(batch, ctx);
    }
}

impl SendsPrefixed for PlainProducer {
    fn prefix_queue(&mut self) -> &mut PrefixQueue {
        &mut self.prefix_queue
    }

    fn send_prefixed(&mut self, batch: TopicBatch, prefixes: Prefixes, _: &mut Context<Self>) {
        self.thread.send(batch.into_records(prefixes));
    }
}
