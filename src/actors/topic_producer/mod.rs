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
//! A record that may pass later fails its part, and the part's token the lane. Where Kafka refuses
//! a batch, the client gives up before it sends what is behind it, and the lane is opened again:
//! the records of that batch are sent [one by one](crate::kafka::outgoing), and what is refused
//! alone is named by the token. What was acknowledged is not sent again.

#[cfg(feature = "test-util")]
mod discard;
#[cfg(feature = "client-kafka")]
mod plain_producer;
mod prefix_queue;
mod refused_topic;
mod table_lanes;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use async_trait::async_trait;
use slog::{Logger, info, warn};

#[cfg(feature = "test-util")]
pub(crate) use self::discard::{Discard, DiscardLanes};
#[cfg(feature = "client-kafka")]
pub(crate) use self::plain_producer::PlainLanes;
pub(crate) use self::table_lanes::TableLanes;
use self::{
    prefix_queue::{PrefixQueue, SendsPrefixed},
    refused_topic::RefusedTopic,
};
use super::lane::{LaneContext, Lanes};
use crate::{
    Error, ErrorKind, Result,
    config::{Config, RefusalPolicy},
    dead_letter::{DeadLetterTable, is_kept_in_table},
    exactly_once::Transactions,
    faults::{FaultSite, Faults},
    format::Prefixes,
    kafka::{
        admin::TopicAdmin,
        clients::Clients,
        outgoing::{Next, Outgoing},
        pipelined::{PipelinedClient, PipelinedTopic},
        producer::KafkaProducer,
    },
    messages::{ExitGuard, TopicBatch},
    schema_registry::Registry,
    status::Status,
};

/// Pause before librdkafka's queue, which is full, is tried again: about a batch's time there.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Opens lanes to Kafka: the default.
pub(crate) struct KafkaLanes(Arc<Topics>);

impl KafkaLanes {
    pub fn new(
        config: &Config,
        producer: KafkaProducer,
        pipelined: Option<PipelinedClient>,
        table: DeadLetterTable,
        transactions: Option<Arc<Transactions>>,
        status: Arc<Status>,
        faults: Faults,
    ) -> Result<Self> {
        Ok(KafkaLanes(Arc::new(Topics {
            admin: Arc::new(TopicAdmin::new(&config.kafka.settings())?),
            clients: Arc::new(Clients::new(producer, config.kafka.connections)),
            pipelined,
            dead_letter_topic: config.dead_letter_topic(),
            table: Arc::new(table),
            transactions,
            registry: Arc::new(Registry::new(config)?),
            ask_again: config.pipeline.restart_backoff_max,
            status,
            block: config.dead_letter.policy == RefusalPolicy::Block,
            faults,
        })))
    }
}

#[async_trait]
impl Lanes for KafkaLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let LaneContext { topic, log, failures, exit } = lane;
        Ok(match self.0.open(&topic, failures, &log).await? {
            OpenedTopic::Producer(producer) => producer.start_with(exit),
            OpenedTopic::Refused(error) => {
                RefusedTopic::start(Arc::clone(&self.0), topic, error, exit, log)
            }
        })
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        self.0.admin.check(timeout).await
    }

    async fn is_back(&self) -> bool {
        self.0.admin.are_back().await
    }
}

/// Opens topics: holds everything that their producers share.
pub(super) struct Topics {
    admin: Arc<TopicAdmin>,
    clients: Arc<Clients>,
    /// Only with `kafka.client = "pipelined"`: sends the records, and `clients` only ask questions.
    pipelined: Option<PipelinedClient>,
    dead_letter_topic: String,
    table: Arc<DeadLetterTable>,
    /// Only with exactly-once: all topics send with its client, and `clients` only ask questions.
    transactions: Option<Arc<Transactions>>,
    registry: Arc<Registry>,
    /// Pause before a topic that Kafka does not take is asked for again.
    ask_again: Duration,
    /// `dead_letter.policy = "block"`: nothing behind a refused record is sent.
    block: bool,
    status: Arc<Status>,
    faults: Faults,
}

/// A topic that was asked for.
pub(super) enum OpenedTopic {
    Producer(Box<TopicProducer>),
    /// Kafka does not take it, for this reason; its events go by `dead_letter.policy`.
    Refused(Error),
}

impl Topics {
    /// Opens a topic, once nothing that was sent to it is in flight any more.
    ///
    /// # Errors
    /// The reason why the topic has to be opened again later.
    pub async fn open(&self, topic: &Arc<str>, failures: u32, log: &Logger) -> Result<OpenedTopic> {
        let error = match self.producer(topic, failures, log).await {
            Ok(producer) => {
                self.status.topic_refused(topic, None);
                return Ok(OpenedTopic::Producer(Box::new(producer)));
            }
            Err(error) => error,
        };
        let timed_out = || self.transactions.as_ref().is_some_and(|all| all.topic_timed_out(topic));
        match error.kind() {
            ErrorKind::TopicRefused => Ok(OpenedTopic::Refused(error)),
            ErrorKind::TopicUnavailable if timed_out() => Ok(OpenedTopic::Refused(error)),
            _ => Err(error),
        }
    }

    /// Makes the topic's producer, after this number of failures in a row.
    async fn producer(
        &self,
        topic: &Arc<str>,
        failures: u32,
        log: &Logger,
    ) -> Result<TopicProducer> {
        self.clients.renew()?;
        let asking = self.clients.first()?;
        let session = match &self.transactions {
            Some(transactions) => Some(transactions.session()?),
            None => None,
        };
        let in_flight = match &session {
            Some(session) => session.client.in_flight(topic),
            None => asking.in_flight(topic),
        };
        in_flight.ended().await;
        if let Some(error) = self.transactions.as_ref().and_then(|all| all.denial(topic)) {
            return Err(error);
        }
        self.registry.check_unanswered(topic).await?;
        let prepared = self.admin.prepare(topic).await?;
        if prepared.created {
            info!(log, "topic created");
        }
        if let Some(count) = prepared.partitions {
            self.status.partitions(topic, count, log);
        }
        let sender = match (&self.transactions, session, &self.pipelined) {
            (Some(transactions), Some(session), _) => {
                let opened = session.client.open(topic, prepared.batch_bytes).await?;
                transactions.opened(topic);
                Sender::Pipelined(opened)
            }
            (_, _, Some(client)) => Sender::Pipelined(
                client
                    .open(topic, prepared.batch_bytes, in_flight, self.faults.clone())
                    .await?
                    .blocking(self.block),
            ),
            _ => {
                let bytes = asking.limits().of(topic, prepared.batch_bytes);
                let producer = self.clients.of(topic, bytes)?;
                let one_by_one = Arc::clone(&self.clients);
                let outgoing = Outgoing::new(producer, in_flight)
                    .one_by_one(move || one_by_one.one_by_one(), failures > 0);
                let outgoing = if self.block { outgoing.blocking() } else { outgoing };
                Sender::Librdkafka(Box::new(outgoing))
            }
        };
        if let Sender::Pipelined(opened) = &sender {
            self.status.partitions(topic, opened.partitions(), log);
        }
        Ok(TopicProducer {
            admin: Arc::clone(&self.admin),
            sender,
            topic: Arc::clone(topic),
            table: self.table_of(topic),
            prefix_queue: PrefixQueue::new(Arc::clone(&self.registry)),
            waits: false,
            faults: self.faults.clone(),
            exit: None,
        })
    }

    /// True with exactly-once.
    pub fn in_transactions(&self) -> bool {
        self.transactions.is_some()
    }

    /// The table for letters that the dead-letter topic refuses; none for any other topic.
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

/// The client that sends the topic's records.
enum Sender {
    Librdkafka(Box<Outgoing>),
    Pipelined(PipelinedTopic),
}

/// The actor of one topic.
pub(super) struct TopicProducer {
    /// The client for questions to the brokers.
    admin: Arc<TopicAdmin>,
    sender: Sender,
    topic: Arc<str>,
    /// The table for letters that the topic refuses; only for the dead-letter topic.
    table: Option<Arc<DeadLetterTable>>,
    prefix_queue: PrefixQueue,
    /// True while it waits for reports, or for room in the queue.
    waits: bool,
    faults: Faults,
    /// Set once the actor has started.
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
                    Ok(()) => this.send_prefixed(batch, Prefixes::default(), ctx),
                    Err(error) => batch.ack.fail_with(error, None),
                }));
            }
            _ => self.enqueue(batch, ctx),
        }
    }
}

impl SendsPrefixed for TopicProducer {
    fn prefix_queue(&mut self) -> &mut PrefixQueue {
        &mut self.prefix_queue
    }

    fn send_prefixed(&mut self, batch: TopicBatch, prefixes: Prefixes, ctx: &mut Context<Self>) {
        let records = batch.into_records(prefixes);
        match &mut self.sender {
            Sender::Pipelined(topic) => topic.send(records),
            Sender::Librdkafka(outgoing) => {
                outgoing.push(records, self.faults.clone());
                self.send(ctx);
            }
        }
    }
}

impl TopicProducer {
    pub fn start_with(mut self, exit: ExitGuard) -> Recipient<TopicBatch> {
        self.exit = Some(exit);
        self.start().recipient()
    }

    /// Sends what may be sent now.
    fn send(&mut self, ctx: &mut Context<Self>) {
        let Sender::Librdkafka(outgoing) = &mut self.sender else { return };
        if self.waits {
            return;
        }
        match outgoing.send() {
            Next::Done => {}
            Next::NoRoom => {
                self.waits = true;
                ctx.run_later(QUEUE_FULL_PAUSE, |this, ctx| this.go_on(ctx));
            }
            Next::AfterReports => {
                self.waits = true;
                let in_flight = outgoing.in_flight().clone();
                let question = outgoing.asks_for_partitions();
                let (admin, topic) = (Arc::clone(&self.admin), Arc::clone(&self.topic));
                let waiting = async move {
                    in_flight.no_records().await;
                    match question {
                        true => admin.partitions(&topic).await.ok().flatten().unwrap_or_default(),
                        false => 0,
                    }
                };
                ctx.spawn(waiting.into_actor(self).map(|partitions, this, ctx| {
                    if let Sender::Librdkafka(outgoing) = &mut this.sender {
                        outgoing.reports_have_come(partitions);
                    }
                    this.go_on(ctx);
                }));
            }
        }
    }

    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.waits = false;
        self.send(ctx);
    }
}
