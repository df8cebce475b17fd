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
//! A topic that Kafka does not take has a [`RefusedTopic`] in place of it, and one that can't be
//! had for now is opened again; with exactly-once it is refused in the end, since one transaction
//! holds all topics.
//!
//! A record that may pass later fails its part, and the part's token the lane. One
//! that Kafka will never take is named by the token; the rest of its part is done.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use async_trait::async_trait;
use slog::{Logger, info, warn};

use super::{
    framing::{Framed, Framing},
    lane::{LaneContext, Lanes},
    refused_topic::RefusedTopic,
};
use crate::{
    Error, ErrorKind, Result,
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
    status::Status,
};

/// How long to wait for room in librdkafka's queue: about a batch's time there.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// What a topic's limit must leave beside the records of a batch.
const BATCH_OVERHEAD: usize = 512;

/// Opens lanes to Kafka: the default.
pub(crate) struct KafkaLanes(Arc<Topics>);

impl KafkaLanes {
    pub fn new(
        config: &Config,
        producer: KafkaProducer,
        table: DeadLetterTable,
        transactions: Option<Arc<Transactions>>,
        status: Arc<Status>,
        faults: Faults,
    ) -> Result<Self> {
        Ok(KafkaLanes(Arc::new(Topics {
            admin: TopicAdmin::new(config.kafka.clone()),
            clients: Clients::new(producer, config.kafka.connections),
            dead_letter_topic: config.dead_letter_topic(),
            table: Arc::new(table),
            transactions,
            registry: Arc::new(Registry::new(config)?),
            ask_again: config.pipeline.restart_backoff_max,
            status,
            faults,
        })))
    }
}

#[async_trait]
impl Lanes for KafkaLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let LaneContext { topic, log, exit, .. } = lane;
        Ok(match self.0.open(&topic, &log).await? {
            Opened::Producer(producer) => producer.start_with(exit),
            Opened::Refused(error) => {
                RefusedTopic::start(Arc::clone(&self.0), topic, error, exit, log)
            }
        })
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        admin::check(&self.0.clients.first()?, timeout).await
    }

    async fn is_back(&self) -> bool {
        match self.0.clients.first() {
            Ok(asking) => admin::are_back(&asking, &self.0.dead_letter_topic).await,
            Err(_) => false,
        }
    }
}

/// What topics are opened with.
pub(super) struct Topics {
    admin: TopicAdmin,
    clients: Clients,
    dead_letter_topic: String,
    table: Arc<DeadLetterTable>,
    /// With it, all topics share its producer, and the others only ask questions.
    transactions: Option<Arc<Transactions>>,
    registry: Arc<Registry>,
    /// After so long, a topic that Kafka does not take is asked for again.
    ask_again: Duration,
    status: Arc<Status>,
    faults: Faults,
}

/// A topic that was asked for.
pub(super) enum Opened {
    Producer(Box<TopicProducer>),
    /// Kafka does not take it, for this reason; its events go by `dead_letter.policy`.
    Refused(Error),
}

impl Topics {
    /// Opens a topic once nothing that was sent to it is under way any more.
    ///
    /// # Errors
    /// What is waited for: the topic is to be opened again later.
    pub async fn open(&self, topic: &Arc<str>, log: &Logger) -> Result<Opened> {
        let error = match self.producer(topic, log).await {
            Ok(producer) => {
                self.status.topic_refused(topic, None);
                return Ok(Opened::Producer(Box::new(producer)));
            }
            Err(error) => error,
        };
        let gives_up = || self.transactions.as_ref().is_some_and(|all| all.gives_up(topic));
        match error.kind() {
            ErrorKind::TopicRefused => Ok(Opened::Refused(error)),
            ErrorKind::TopicUnavailable if gives_up() => Ok(Opened::Refused(error)),
            _ => Err(error),
        }
    }

    async fn producer(&self, topic: &Arc<str>, log: &Logger) -> Result<TopicProducer> {
        let asking = self.clients.first()?;
        let transactional = match &self.transactions {
            Some(transactions) => Some(transactions.producer()?),
            None => None,
        };
        let in_flight = transactional.as_ref().unwrap_or(&asking).in_flight(topic);
        in_flight.ended().await;
        if let Some(error) = self.transactions.as_ref().and_then(|all| all.denial(topic)) {
            return Err(error);
        }
        self.registry.answers(topic).await?;
        let prepared = self.admin.prepare(&asking, topic).await?;
        if prepared.created {
            info!(log, "topic created");
        }
        if let Some(count) = prepared.partitions {
            self.status.partitions(topic, count, log);
        }
        let limit = prepared.max_message_bytes.unwrap_or(usize::MAX);
        let batch_bytes = limit.saturating_sub(BATCH_OVERHEAD).max(1);
        let producer = match (&self.transactions, transactional) {
            (Some(transactions), Some(producer)) => {
                transactions.fit(&producer, topic, batch_bytes)?;
                transactions.opened(topic);
                producer
            }
            _ => self.clients.of(topic, batch_bytes)?,
        };
        Ok(TopicProducer {
            producer,
            in_flight,
            table: self.table_of(topic),
            framing: Framing::new(Arc::clone(&self.registry)),
            queue: VecDeque::new(),
            faults: self.faults.clone(),
            exit: None,
        })
    }

    /// Where the letters of the dead-letter topic go that it does not take.
    pub fn table_of(&self, topic: &str) -> Option<Arc<DeadLetterTable>> {
        (*topic == *self.dead_letter_topic).then(|| Arc::clone(&self.table))
    }

    /// Says that Kafka does not take the topic, and answers when to ask for it again.
    pub fn refused(&self, topic: &Arc<str>, error: &Error, log: &Logger) -> Instant {
        self.status.topic_refused(topic, Some(error));
        let instead = match self.table_of(topic) {
            Some(_) => "its letters are kept in `factlib.dead_letters` alone",
            None => "its events go by dead_letter.policy",
        };
        warn!(log, "Kafka does not take the topic"; "error" => %error, "instead" => instead);
        Instant::now() + self.ask_again
    }
}

/// One topic's way into Kafka.
pub(super) struct TopicProducer {
    producer: KafkaProducer,
    in_flight: InFlight,
    /// For the dead-letter topic: keeps what is too large for it.
    table: Option<Arc<DeadLetterTable>>,
    framing: Framing,
    /// What waits for room in librdkafka's queue: a part and how much of it is sent.
    queue: VecDeque<(Arc<Part>, usize)>,
    faults: Faults,
    /// From its start on.
    exit: Option<ExitGuard>,
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
    pub fn start_with(mut self, exit: ExitGuard) -> Recipient<TopicBatch> {
        self.exit = Some(exit);
        self.start().recipient()
    }

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
