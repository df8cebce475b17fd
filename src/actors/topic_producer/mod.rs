//! TopicProducer: the records of one topic into Kafka.
//!
//! # Life
//! Made by [`KafkaLanes`] at the topic's first event and after each failure,
//! once all that its predecessor sent has ended.
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
//! A record that Kafka refuses is named by its batch's answer; the rest of the batch goes out. Where
//! the brokers do not take the topic's records for now, its batches fail, and the lane is opened
//! again once all of them have ended. What was acknowledged is not sent again.

mod added_partitions;
#[cfg(feature = "test-util")]
mod discard;
mod filtered;
#[cfg(feature = "client-kafka")]
mod plain_producer;
mod prefix_queue;
mod refused_topic;
mod table_lanes;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use async_trait::async_trait;
use slog::{Logger, info, warn};
use tokio::time::sleep;

pub(crate) use self::added_partitions::PartitionWatch;
#[cfg(feature = "test-util")]
pub(crate) use self::discard::{Discard, DiscardLanes};
#[cfg(feature = "client-kafka")]
pub(crate) use self::plain_producer::PlainLanes;
pub(crate) use self::table_lanes::TableLanes;
use self::{
    filtered::FilteredEvents,
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
        pipelined::{AfterRefusal, PipelinedClient, PipelinedTopic},
    },
    messages::{ExitGuard, TopicBatch},
    receipts::{FILTERED_LANE, ReceiptSender},
    schema_registry::Registry,
    status::Status,
};

/// Opens lanes to Kafka: the default.
pub(crate) struct KafkaLanes(Arc<Topics>);

impl KafkaLanes {
    pub fn new(
        config: &Config,
        client: TopicClient,
        table: DeadLetterTable,
        receipts: Option<ReceiptSender>,
        partition_watch: PartitionWatch,
        status: Arc<Status>,
        faults: Faults,
    ) -> Result<Self> {
        Ok(KafkaLanes(Arc::new(Topics {
            admin: Arc::new(TopicAdmin::new(&config.kafka.settings())?),
            client,
            dead_letter_topic: config.dead_letter_topic(),
            table: Arc::new(table),
            receipts,
            registry: Arc::new(Registry::new(config)?),
            partition_watch,
            ask_again: config.pipeline.restart_backoff_max,
            refusals: Mutex::default(),
            status,
            after_refusal: match config.dead_letter.policy {
                RefusalPolicy::DeadLetter | RefusalPolicy::Stop => AfterRefusal::Continue,
                RefusalPolicy::Block => AfterRefusal::Block,
                RefusalPolicy::HoldAggregate => AfterRefusal::Hold,
            },
            faults,
        })))
    }
}

#[async_trait]
impl Lanes for KafkaLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let LaneContext { topic, log, exit, .. } = lane;
        if *topic == *FILTERED_LANE
            && let Some(receipts) = self.0.receipts()?
        {
            return Ok(FilteredEvents::start(receipts, exit));
        }
        let (error, until) = match self.0.refusal(&topic) {
            Some(refusal) => refusal,
            None => match self.0.open(&topic, &log).await? {
                OpenedTopic::Producer(producer) => return Ok(producer.start_with(exit)),
                OpenedTopic::Refused(error) => {
                    let until = self.0.refused(&topic, &error, &log);
                    (error, until)
                }
            },
        };
        Ok(RefusedTopic::start(Arc::clone(&self.0), topic, (error, until), exit, log))
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        self.0.admin.check(timeout).await
    }

    async fn is_back(&self) -> bool {
        self.0.admin.are_back().await
    }
}

/// The client that sends the records of all topics.
pub(crate) enum TopicClient {
    AtLeastOnce(Arc<PipelinedClient>),
    /// Each session of transactions has a client of its own.
    ExactlyOnce(Arc<Transactions>),
}

/// Opens topics: holds everything that their producers share.
pub(super) struct Topics {
    admin: Arc<TopicAdmin>,
    client: TopicClient,
    dead_letter_topic: String,
    table: Arc<DeadLetterTable>,
    /// None if no receipts are kept.
    receipts: Option<ReceiptSender>,
    registry: Arc<Registry>,
    partition_watch: PartitionWatch,
    /// Pause before a topic that Kafka does not take is asked for again.
    ask_again: Duration,
    /// Topics that Kafka does not take, with the reason, and when to ask for each again. They outlive
    /// their actor, which ends with each refusal if the events behind it are held.
    refusals: Mutex<HashMap<Arc<str>, (Error, Instant)>>,
    status: Arc<Status>,
    after_refusal: AfterRefusal,
    faults: Faults,
}

/// A topic that was asked for.
pub(super) enum OpenedTopic {
    Producer(Box<TopicProducer>),
    /// Kafka does not take it, for this reason; its events go by `dead_letter.policy`.
    Refused(Error),
}

/// Limit for all brokers to know of a topic that was just created, and pause between two attempts.
const KNOWN_LIMIT: Duration = Duration::from_secs(5);
const KNOWN_PAUSE: Duration = Duration::from_millis(20);

/// The wait for a new topic: brokers hear of it some time after its creation.
struct NewTopic {
    since: Instant,
    /// False for a topic that was there before.
    is_new: bool,
}

impl NewTopic {
    /// Pauses, and returns true, if it can't be opened because brokers do not know it yet.
    async fn is_awaited(&self, error: &Error) -> bool {
        let is_awaited = self.is_new
            && error.kind() == ErrorKind::TopicUnavailable
            && self.since.elapsed() < KNOWN_LIMIT;
        if is_awaited {
            sleep(KNOWN_PAUSE).await;
        }
        is_awaited
    }
}

impl Topics {
    /// Opens a topic, once nothing that was sent to it is in flight any more.
    ///
    /// # Errors
    /// The reason why the topic has to be opened again later.
    pub async fn open(&self, topic: &Arc<str>, log: &Logger) -> Result<OpenedTopic> {
        let error = match self.producer(topic, log).await {
            Ok(producer) => {
                self.status.topic_refused(topic, None);
                self.refusals().remove(topic);
                return Ok(OpenedTopic::Producer(Box::new(producer)));
            }
            Err(error) => error,
        };
        let timed_out = || match &self.client {
            TopicClient::AtLeastOnce(_) => false,
            TopicClient::ExactlyOnce(transactions) => transactions.topic_timed_out(topic),
        };
        match error.kind() {
            ErrorKind::TopicRefused => Ok(OpenedTopic::Refused(error)),
            ErrorKind::TopicUnavailable if timed_out() => Ok(OpenedTopic::Refused(error)),
            _ => Err(error),
        }
    }

    /// Makes the topic's producer.
    async fn producer(&self, topic: &Arc<str>, log: &Logger) -> Result<TopicProducer> {
        let last_used = self.partition_watch.last_used(topic);
        if let Some(count) = last_used {
            self.status.partitions_before(topic, count);
        }
        let sender = match &self.client {
            TopicClient::AtLeastOnce(client) => {
                client.in_flight(topic).ended().await;
                let (batch_bytes, new) = self.prepare(topic, log).await?;
                let opened = loop {
                    match client.open(topic, batch_bytes, self.faults.clone()).await {
                        Err(error) if new.is_awaited(&error).await => {}
                        opened => break opened?,
                    }
                };
                opened.after_refusal(self.after_refusal_of(topic))
            }
            TopicClient::ExactlyOnce(transactions) => {
                let session = transactions.session()?;
                session.client.in_flight(topic).ended().await;
                if let Some(error) = transactions.denial(topic) {
                    return Err(error);
                }
                let (batch_bytes, new) = self.prepare(topic, log).await?;
                let opened = loop {
                    match session.client.open(topic, batch_bytes).await {
                        Err(error) if new.is_awaited(&error).await => {}
                        opened => break opened?,
                    }
                };
                transactions.opened(topic);
                opened
            }
        };
        let partitions = sender.partitions();
        self.status.partitions(topic, partitions, log);
        self.partition_watch.opened(topic, last_used, partitions).await?;
        Ok(TopicProducer {
            sender,
            table: self.table_of(topic),
            receipts: self.receipts()?,
            prefix_queue: PrefixQueue::new(Arc::clone(&self.registry)),
            faults: self.faults.clone(),
            exit: None,
        })
    }

    /// Creates the topic if it is missing. Returns its limit of a batch's bytes, if that is known.
    async fn prepare(&self, topic: &Arc<str>, log: &Logger) -> Result<(Option<usize>, NewTopic)> {
        self.registry.check_unanswered(topic).await?;
        let prepared = self.admin.prepare(topic).await?;
        if prepared.created {
            info!(log, "topic created");
        }
        if let Some(count) = prepared.partitions {
            self.status.partitions(topic, count, log);
        }
        let new = NewTopic { since: Instant::now(), is_new: prepared.created };
        Ok((prepared.batch_bytes, new))
    }

    /// The way to the receipts, in the present session with exactly-once; none if none are kept.
    pub fn receipts(&self) -> Result<Option<ReceiptSender>> {
        let Some(receipts) = &self.receipts else { return Ok(None) };
        let in_transaction = match &self.client {
            TopicClient::AtLeastOnce(_) => None,
            TopicClient::ExactlyOnce(transactions) => transactions.session()?.receipts.clone(),
        };
        Ok(Some(receipts.in_transaction(in_transaction)))
    }

    fn after_refusal_of(&self, topic: &str) -> AfterRefusal {
        let are_letters = *topic == *self.dead_letter_topic;
        match self.after_refusal {
            // Nothing waits behind a letter.
            AfterRefusal::Hold if are_letters => AfterRefusal::Continue,
            after_refusal => after_refusal,
        }
    }

    /// True if nothing more may be sent after a refusal until the lane is opened again.
    pub fn stops_after_refusal(&self) -> bool {
        self.after_refusal == AfterRefusal::Hold && !self.in_transactions()
    }

    /// True with exactly-once.
    pub fn in_transactions(&self) -> bool {
        matches!(self.client, TopicClient::ExactlyOnce(_))
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
        let until = Instant::now() + self.ask_again;
        self.refusals().insert(Arc::clone(topic), (error.clone(), until));
        until
    }

    /// Why Kafka does not take the topic, and until when it is not asked again.
    fn refusal(&self, topic: &Arc<str>) -> Option<(Error, Instant)> {
        let holds =
            |(_, until): &&(Error, Instant)| self.stops_after_refusal() && Instant::now() < *until;
        self.refusals().get(topic).filter(holds).cloned()
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<Arc<str>, (Error, Instant)>> {
        // Nothing panics while it is held.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The actor of one topic.
pub(super) struct TopicProducer {
    sender: PipelinedTopic,
    /// The table for letters that the topic refuses; only for the dead-letter topic.
    table: Option<Arc<DeadLetterTable>>,
    /// None if no receipts are kept.
    receipts: Option<ReceiptSender>,
    prefix_queue: PrefixQueue,
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

    fn send_prefixed(&mut self, batch: TopicBatch, prefixes: Prefixes, _: &mut Context<Self>) {
        self.sender.send(match self.receipts.clone() {
            None => batch.into_records(prefixes),
            Some(receipts) => {
                batch.into_records_with_receipts(prefixes, receipts, self.sender.hold())
            }
        });
    }
}

impl TopicProducer {
    pub fn start_with(mut self, exit: ExitGuard) -> Recipient<TopicBatch> {
        self.exit = Some(exit);
        self.start().recipient()
    }
}
