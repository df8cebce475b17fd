//! TopicProducer: the records of one topic into Kafka.
//!
//! # Life
//! Made by [`KafkaLanes`] at the topic's first event and after each failure,
//! once all that its predecessor sent has ended.
//!
//! # Backpressure
//! Records are made of events when there is room for them in librdkafka's queue, which is
//! as large as the byte window. It is full where records are larger than their events or
//! more; the actor then waits and tries again.
//!
//! # Failure
//! Ids of schemas are asked for before a part is sent; what is behind it waits. Where the
//! registry does not answer, the part fails and nothing more is sent; what was sent before
//! ends in its own time.
//!
//! A record that may pass later fails its part, and the part's token the lane. One
//! that Kafka will never take is named by the token; the rest of its part is done.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use async_trait::async_trait;
use slog::info;

use super::{
    framing::{Framed, Framing},
    lane::{LaneContext, Lanes},
};
use crate::{
    Result,
    config::Config,
    dead_letter::DeadLetterTable,
    faults::{FaultSite, Faults},
    kafka::{
        admin::{self, TopicAdmin},
        clients::Clients,
        part::{InFlight, Part},
        producer::KafkaProducer,
        record::is_kept_in_table,
        transactions::Transactions,
    },
    messages::{ExitGuard, TopicBatch},
    schema_registry::{Prefixes, Registry},
};

/// How long to wait for room in librdkafka's queue: about a batch's time there.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// What a topic's limit must leave beside the records of a batch.
const BATCH_OVERHEAD: usize = 512;

/// Opens lanes to Kafka: the default.
pub(crate) struct KafkaLanes {
    topics: TopicAdmin,
    clients: Clients,
    dead_letter_topic: String,
    table: Arc<DeadLetterTable>,
    /// With it, all topics share its producer, and the others only ask questions.
    transactions: Option<Arc<Transactions>>,
    registry: Arc<Registry>,
    faults: Faults,
}

impl KafkaLanes {
    pub fn new(
        config: &Config,
        producer: KafkaProducer,
        table: DeadLetterTable,
        transactions: Option<Arc<Transactions>>,
        faults: Faults,
    ) -> Result<Self> {
        Ok(KafkaLanes {
            topics: TopicAdmin::new(config.kafka.clone()),
            clients: Clients::new(producer, config.kafka.connections),
            dead_letter_topic: config.dead_letter_topic(),
            table: Arc::new(table),
            transactions,
            registry: Arc::new(Registry::new(config)?),
            faults,
        })
    }
}

#[async_trait]
impl Lanes for KafkaLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let asking = self.clients.first()?;
        let transactional = match &self.transactions {
            Some(transactions) => Some(transactions.producer()?),
            None => None,
        };
        let in_flight = transactional.as_ref().unwrap_or(&asking).in_flight(&lane.topic);
        in_flight.ended().await;
        self.registry.answers(&lane.topic).await?;
        let topic = self.topics.prepare(&asking, &lane.topic).await?;
        if topic.created {
            info!(lane.log, "topic created");
        }
        let limit = topic.max_message_bytes.unwrap_or(usize::MAX);
        let batch_bytes = limit.saturating_sub(BATCH_OVERHEAD).max(1);
        let producer = match (&self.transactions, transactional) {
            (Some(transactions), Some(producer)) => {
                transactions.fit(&producer, &lane.topic, batch_bytes)?;
                producer
            }
            _ => self.clients.of(&lane.topic, batch_bytes)?,
        };
        let producer = TopicProducer {
            producer,
            in_flight,
            table: (*lane.topic == *self.dead_letter_topic).then(|| Arc::clone(&self.table)),
            framing: Framing::new(Arc::clone(&self.registry)),
            queue: VecDeque::new(),
            faults: self.faults.clone(),
            _exit: lane.exit,
        };
        Ok(producer.start().recipient())
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        admin::check(&self.clients.first()?, timeout).await
    }
}

/// One topic's way into Kafka.
struct TopicProducer {
    producer: KafkaProducer,
    in_flight: InFlight,
    /// For the dead-letter topic: keeps what is too large for it.
    table: Option<Arc<DeadLetterTable>>,
    framing: Framing,
    /// What waits for room in librdkafka's queue: a part and how much of it is sent.
    queue: VecDeque<(Arc<Part>, usize)>,
    faults: Faults,
    _exit: ExitGuard,
}

impl Actor for TopicProducer {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for TopicProducer {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::TopicProducer);
        match &self.table {
            Some(table) if batch.events.iter().any(is_kept_in_table) => {
                let (table, events) = (Arc::clone(table), Arc::clone(&batch.events));
                let keeping = async move { table.keep_all(&events).await };
                // The order of dead letters means nothing.
                ctx.spawn(keeping.into_actor(self).map(|kept, this, ctx| match kept {
                    Ok(()) => this.send_framed(batch, Prefixes::default(), ctx),
                    Err(error) => batch.ack.fail_with(error, None),
                }));
            }
            _ => self.frame(batch, ctx),
        }
    }
}

impl Framed for TopicProducer {
    fn framing(&mut self) -> &mut Framing {
        &mut self.framing
    }

    fn send_framed(&mut self, batch: TopicBatch, prefixes: Prefixes, ctx: &mut Context<Self>) {
        let (in_flight, faults) = (self.in_flight.clone(), self.faults.clone());
        let part = self.producer.part(batch, prefixes, in_flight, faults);
        self.queue.push_back((part, 0));
        if self.queue.len() == 1 {
            self.send(ctx);
        }
    }
}

impl TopicProducer {
    /// Sends from the front of the queue while librdkafka takes records.
    fn send(&mut self, ctx: &mut Context<Self>) {
        while let Some((part, sent)) = self.queue.front_mut() {
            while *sent < part.len() {
                if !self.producer.send(part, *sent) {
                    ctx.run_later(QUEUE_FULL_PAUSE, |this, ctx| this.send(ctx));
                    return;
                }
                *sent += 1;
            }
            self.queue.pop_front();
        }
    }
}
