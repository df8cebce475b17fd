//! The driver: the task that tracks brokers, partition leaders and batches in flight, and sends
//! the batches.
//!
//! # Life
//! The driver runs until all handles are dropped and every record has a result. In transactions, it
//! drops the records and aborts the open transaction, unless that takes long.
//!
//! # Sending
//! The driver sends a request to a broker as soon as there is a batch for it and fewer than
//! [`MAX_REQUESTS`](produce::MAX_REQUESTS) requests are in flight, with a short [pause](pace)
//! between requests in flight. A request contains one batch of each partition that has one. So
//! records are sent without delay under light load, and batches grow under heavy load.
//!
//! The driver holds a connection to a broker only while requests are in flight, and then puts it back
//! into the [pool](crate::connection_pool). All requests in flight to a broker are on one connection,
//! so the broker handles them in their order.
//!
//! # Failure
//! Temporary failures are retried for ever, after a pause that grows up to
//! [`Settings::backoff_max`]. When a connection fails, the results of its requests are unknown,
//! and the [queues](crate::partition) send their batches again.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kafka_protocol::{
    messages::{MetadataResponse, ProduceResponse, TopicName},
    protocol::StrBytes,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    connection::Connection,
    connection_pool::Lease,
    error::{Error, Result},
    partition::Token,
    producer::Observer,
    settings::Settings,
    topic::{Announced, Topic},
    transaction::{TransactionError, Transactional},
};

mod cluster;
mod coordinator;
mod growth;
mod pace;
mod produce;
mod topics;
mod transaction;

pub use self::growth::DrainHold;
use self::{
    cluster::{Broker, Link, OPENING_PAUSE},
    coordinator::CoordinatorResponse,
    topics::{Closing, Partition, TopicState},
    transaction::Transaction,
};

/// A command from a handle to the driver.
pub(crate) enum Command {
    /// Looks up a topic.
    Open { name: Arc<str>, answer: oneshot::Sender<Result<Topic>> },
    /// Closes a topic.
    Close { topic: Topic, answer: oneshot::Sender<()> },
    /// Waits for the first transaction.
    Begin { answer: Answer },
    /// Commits a transaction once all its records have a result.
    Commit { number: u64, answer: Answer },
    /// Aborts everything uncommitted.
    Abort { answer: Answer },
}

type Answer = oneshot::Sender<Result<(), TransactionError>>;

type Task = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Result of one of the driver's tasks.
enum Done {
    Metadata(Result<((String, u16), MetadataResponse)>),
    ProducerId(Result<((String, u16), i64)>),
    Coordinator(CoordinatorResponse),
    Connected {
        broker: i32,
        connection: Result<Lease>,
    },
    /// A connection that the driver watches has ended.
    Closed {
        broker: i32,
        serial: u64,
        error: Option<Error>,
    },
    /// The driver watches another connection.
    Unwatched,
    Produced {
        broker: i32,
        sent: Vec<Sent>,
        at: Instant,
        answer: Result<ProduceResponse>,
    },
}

/// One batch of a request.
struct Sent {
    topic: usize,
    partition: usize,
    token: Token,
}

/// Producer id and epoch, assigned by the brokers.
#[derive(Clone, Copy, Debug)]
struct Identity {
    producer_id: i64,
    epoch: i16,
    /// Position among the identities that the brokers have assigned to this driver.
    serial: u64,
}

pub(crate) struct Driver {
    settings: Arc<Settings>,
    observer: Arc<dyn Observer>,
    commands: mpsc::UnboundedReceiver<Command>,
    announced: Arc<Announced>,
    topics: Vec<TopicState>,
    by_name: HashMap<Arc<str>, usize>,
    brokers: HashMap<i32, Broker>,
    /// The broker that was the last to answer a request that any of them can answer.
    any_broker: Option<(String, u16)>,
    /// Number of answers of no use to such requests; each makes another broker be asked first.
    useless_answers: usize,
    identity: Option<Identity>,
    identities: u64,
    /// Minimum [`Identity::serial`] for a partition that takes a new identity.
    fresh_from: u64,
    identity_schedule: Schedule,
    metadata_schedule: Schedule,
    /// Indexes of the topics whose added partitions are not used yet.
    growing: Vec<usize>,
    transaction: Option<Transaction>,
    tasks: FuturesUnordered<Task>,
}

/// Schedule of a repeated request.
struct Schedule {
    due: Instant,
    is_requesting: bool,
    /// Time of the last retry, past or to come.
    retry_at: Instant,
    /// Number of retries in a row.
    retries: u32,
}

impl Schedule {
    fn new() -> Self {
        let now = Instant::now();
        Schedule { due: now, is_requesting: false, retry_at: now, retries: 0 }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_requesting && now >= self.due
    }

    /// Begins a request. The next one is due after `next`, or at the retry that is to come.
    fn begin(&mut self, next: Duration) {
        let now = Instant::now();
        self.is_requesting = true;
        self.due = if self.retry_at > now { self.retry_at } else { now + next };
    }

    /// Brings the next request forward, after a pause that grows with each retry in a row. A retry
    /// that is to come serves everyone who asks for one meanwhile.
    fn retry(&mut self, settings: &Settings) {
        let now = Instant::now();
        if self.retry_at > now {
            return;
        }
        if now - self.retry_at > settings.backoff_max {
            self.retries = 0;
        }
        // Records wait for the answer, so the longest pause is half of others.
        self.retries += 1;
        self.retry_at = now + pause(settings, self.retries) / 2;
        self.due = self.due.min(self.retry_at);
    }

    fn failed(&mut self, settings: &Settings) {
        self.is_requesting = false;
        self.retry(settings);
        self.due = self.retry_at;
    }

    /// Sends the next request after `next`, or earlier if it was brought forward meanwhile.
    fn succeeded(&mut self, next: Duration) {
        self.is_requesting = false;
        self.due = self.due.min(Instant::now() + next);
    }

    fn hurry(&mut self, limit: Duration) {
        self.due = self.due.min(Instant::now() + limit);
    }
}

impl Driver {
    pub fn new(
        settings: Arc<Settings>,
        observer: Arc<dyn Observer>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Driver {
            settings,
            observer,
            commands,
            announced: Arc::default(),
            topics: Vec::new(),
            by_name: HashMap::new(),
            brokers: HashMap::new(),
            any_broker: None,
            useless_answers: 0,
            identity: None,
            identities: 0,
            fresh_from: 0,
            identity_schedule: Schedule::new(),
            metadata_schedule: Schedule::new(),
            growing: Vec::new(),
            transaction: None,
            tasks: FuturesUnordered::new(),
        }
    }

    /// Makes the driver send all records in transactions.
    pub fn in_transactions(
        mut self,
        transactional: Transactional,
        failed: watch::Sender<Option<TransactionError>>,
    ) -> Self {
        self.transaction = Some(Transaction::new(transactional, failed));
        self
    }

    /// Returns the number of the transaction that new records belong to.
    pub fn transaction_number(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.announced.transaction)
    }

    pub async fn run(mut self) {
        let mut is_wanted = true;
        while is_wanted || self.has_to_end() {
            let (announced, due) = (Arc::clone(&self.announced), self.next_due());
            tokio::select! {
                command = self.commands.recv(), if is_wanted => match command {
                    Some(command) => self.command(command),
                    None => {
                        is_wanted = false;
                        self.abort_at_the_end();
                    }
                },
                () = announced.alarm.notified() => {}
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.done(done),
                () = sleep_until(due) => {}
            }
            self.enqueue_announced_partitions();
            self.request_updates();
            self.advance_growths();
            self.send();
            self.put_back_connections();
            self.advance_transaction();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open { name, answer } => self.open(name, answer),
            Command::Close { topic, answer } => self.close_topic(&topic, answer),
            Command::Begin { answer } => self.begin(answer),
            Command::Commit { number, answer } => self.commit(number, answer),
            Command::Abort { answer } => self.abort(answer),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Metadata(answer) => self.handle_metadata(answer),
            Done::ProducerId(answer) => self.handle_producer_id(answer),
            Done::Coordinator(step) => self.handle_coordinator_response(step),
            Done::Connected { broker, connection } => self.connected(broker, connection),
            Done::Closed { broker, serial, error } => self.closed(broker, serial, error),
            Done::Unwatched => {}
            Done::Produced { broker, sent, at, answer } => self.produced(broker, sent, at, answer),
        }
    }

    /// Returns the number of the transaction whose records may be sent; without transactions, a
    /// number that no round of records exceeds.
    fn open_transaction(&self) -> u64 {
        self.transaction.as_ref().map_or(u64::MAX, Transaction::number)
    }

    /// Returns true if there is work left to do after all handles were dropped.
    fn has_to_end(&self) -> bool {
        match &self.transaction {
            Some(transaction) => transaction.is_aborted_at_the_end(),
            None => !self.is_at_rest(),
        }
    }

    fn is_at_rest(&self) -> bool {
        let number = self.open_transaction();
        self.topics.iter().all(|topic| topic.is_at_rest(number))
    }

    fn open(&mut self, name: Arc<str>, answer: oneshot::Sender<Result<Topic>>) {
        let place = *self.by_name.entry(Arc::clone(&name)).or_insert_with(|| {
            let state = TopicState::new(name);
            let free = self.topics.iter().position(|topic| matches!(topic.closing, Closing::Done));
            match free {
                Some(free) => {
                    self.topics[free] = state;
                    free
                }
                None => {
                    self.topics.push(state);
                    self.topics.len() - 1
                }
            }
        });
        // The cached metadata of the topic may be out of date.
        self.topics[place].waiting.push(answer);
        self.metadata_schedule.hurry(OPENING_PAUSE);
    }

    fn close_topic(&mut self, topic: &Topic, answer: oneshot::Sender<()>) {
        let place = topic.0.place;
        let state = &mut self.topics[place];
        let is_it = state.topic.as_ref().is_some_and(|known| Arc::ptr_eq(&known.0, &topic.0));
        if !is_it {
            // The topic was closed before.
            let _ = answer.send(());
            return;
        }
        state.closers.push(answer);
        self.close(place);
    }

    /// Closes a topic; opening its name again creates a new one.
    fn close(&mut self, place: usize) {
        let state = &mut self.topics[place];
        if matches!(state.closing, Closing::No | Closing::Stopped) {
            state.closing = Closing::Begun;
            state.topic.iter().for_each(|topic| topic.0.close());
            if self.by_name.get(&state.name) == Some(&place) {
                self.by_name.remove(&state.name);
            }
        }
        self.end_closed(place);
    }

    /// Frees a closed topic once nothing is in flight, and a stopped one once nothing is left.
    fn end_closed(&mut self, place: usize) {
        let is_transactional = self.transaction.is_some();
        let number = self.open_transaction();
        let state = &mut self.topics[place];
        match state.closing {
            Closing::No | Closing::Done => return,
            Closing::Stopped if !state.is_at_rest(state.last_round(number)) => return,
            Closing::Stopped | Closing::Begun => {}
        }
        if state.in_flight() > 0 {
            return;
        }
        if self.by_name.get(&state.name) == Some(&place) {
            self.by_name.remove(&state.name);
        }
        state.closing = Closing::Done;
        // The next topic of this name numbers its records from 0 again. With the same producer id,
        // a broker would treat them as duplicates.
        if state.partitions.iter().any(Partition::has_sent) {
            match &mut self.transaction {
                None => self.fresh_from = self.identities + 1,
                Some(transaction) => transaction.sequence_lost(),
            }
        }
        state.clear(is_transactional);
        (state.topic, state.partitions, state.growth) = (None, Vec::new(), None);
        let name = Arc::clone(&state.name);
        if std::mem::take(&mut state.failing) > 0 || state.is_missing {
            self.observer.recovered(&name);
        }
        for broker in self.brokers.values_mut() {
            broker.active.retain(|(topic, _)| *topic != place);
        }
        let state = &mut self.topics[place];
        for closer in std::mem::take(&mut state.closers) {
            let _ = closer.send(());
        }
        for waiting in std::mem::take(&mut state.waiting) {
            self.open(Arc::clone(&name), waiting);
        }
    }

    /// Closes all topics, and drops all records and their receipts.
    fn drop_records(&mut self) {
        let is_transactional = self.transaction.is_some();
        self.topics.iter_mut().for_each(|topic| {
            topic.topic.iter().for_each(|topic| topic.0.close());
            topic.clear(is_transactional);
        });
    }

    /// Adds partitions with new records to the queues of their leaders.
    fn enqueue_announced_partitions(&mut self) {
        for place in self.announced.take() {
            let Some(handle) = self.topics[place].topic.clone() else { continue };
            for partition in handle.0.take_announced_partitions() {
                self.enqueue_partition(place, partition);
            }
        }
    }

    fn enqueue_partition(&mut self, topic: usize, place: usize) {
        let state = &mut self.topics[topic];
        if state.is_closed() {
            return;
        }
        let Some(partition) = state.partitions.get_mut(place) else { return };
        let broker = partition.leader.and_then(|leader| self.brokers.get_mut(&leader));
        if let Some(broker) = broker
            && !partition.is_enqueued
        {
            partition.is_enqueued = true;
            broker.active.push_back((topic, place));
        }
    }

    /// Adds all partitions with records to the queues of their leaders.
    fn enqueue_filled_partitions(&mut self) {
        for topic in 0..self.topics.len() {
            let Some(handle) = self.topics[topic].topic.clone() else { continue };
            for partition in handle.0.take_announced_partitions() {
                self.enqueue_partition(topic, partition);
            }
        }
    }

    /// Returns the next time at which the driver has to act without any event.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let mut due = now + self.settings.metadata_max_age;
        let mut look_at = |at: Option<Instant>| {
            // A time in the past is skipped: its work waits for an event.
            due = at.filter(|at| *at > now).map_or(due, |at| due.min(at));
        };
        for schedule in [&self.metadata_schedule, &self.identity_schedule] {
            look_at((!schedule.is_requesting).then_some(schedule.due));
        }
        if let Some(transaction) = &self.transaction {
            look_at(transaction.due());
            look_at(transaction.ends_at);
        }
        for throttle in self.brokers.values().filter_map(|broker| broker.throttle.as_ref()) {
            look_at(Some(throttle.until));
            look_at(Some(throttle.report_at));
        }
        for broker in self.brokers.values().filter(|broker| !broker.active.is_empty()) {
            match &broker.link {
                Link::Down { not_before: not_before @ Some(_) } => look_at(*not_before),
                Link::Down { not_before: None } | Link::Up(_) => {
                    look_at(Some(broker.pace.next()));
                    for (topic, place) in &broker.active {
                        look_at(self.topics[*topic].partitions[*place].not_before);
                    }
                }
                Link::Connecting => {}
            }
        }
        due
    }
}

impl Drop for Driver {
    /// Drops all receipts, even after a panic, so that their owners learn that the records are
    /// lost.
    fn drop(&mut self) {
        self.drop_records();
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Returns a pause that doubles with each failure, with random jitter.
fn pause(settings: &Settings, failures: u32) -> Duration {
    let pause = settings.backoff.saturating_mul(1 << failures.min(16)).min(settings.backoff_max);
    let mut random = [0; 1];
    // Without random bytes, all pauses are equal, which does no harm.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(0.8 + 0.4 * f64::from(random[0]) / 255.0)
}
