//! The task that sends: it knows the brokers, who leads which partition, and what is in flight.
//!
//! # Life
//! It lives until all handles are gone and everything has ended.
//!
//! # Sending
//! A broker gets a request as soon as there is a batch for it and fewer than [`MAX_REQUESTS`]
//! are on their way; a request takes along one batch of each partition that has one. So nothing
//! waits while little happens, and batches grow while much does.
//!
//! # Failure
//! Whatever may pass is tried again for ever, after a pause that grows up to
//! [`Settings::backoff_max`]. A connection that fails takes down the requests on it: nobody
//! knows what became of them, and the [queues](crate::partition) send them again.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kafka_protocol::{
    messages::{
        InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse, ProducerId, TopicName,
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    answers::{Judged, judge},
    connection::Connection,
    error::{Code, Error, Result, check},
    partition::{Answer, Event, PartitionQueue, Token},
    producer::Observer,
    record_batch::Stamp,
    settings::Settings,
    topic::{Announced, Outgoing, Refusal, Topic},
};

/// Requests on their way to a broker at most: enough to keep a far one busy.
const MAX_REQUESTS: usize = 5;

/// Bytes of records in a request at most, but for a single batch; brokers take 100 MiB.
const MAX_REQUEST_BYTES: usize = 8 << 20;

/// Metadata is not asked for more often.
const METADATA_PAUSE: Duration = Duration::from_millis(20);

/// Idle time after which a broker may have forgotten the producer. By default it forgets one after
/// a day (`producer.id.expiration.ms`).
const LONG_REST: Duration = Duration::from_secs(60);

/// The newest versions that name topics by their names.
const PRODUCE_VERSION: i16 = 12;
const METADATA_VERSION: i16 = 12;

/// Asks the driver for a topic.
pub(crate) struct OpenTopic {
    pub name: Arc<str>,
    pub answer: oneshot::Sender<Result<Topic>>,
}

type Task = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Result of one of the driver's tasks.
enum Done {
    Metadata(Result<(Connection, MetadataResponse)>),
    ProducerId(Result<(Connection, i64)>),
    Connected { broker: i32, connection: Result<Connection> },
    Produced { broker: i32, sent: Vec<Sent>, answer: Result<ProduceResponse> },
}

/// One batch of a request.
struct Sent {
    topic: usize,
    partition: usize,
    token: Token,
}

pub(crate) struct Driver {
    settings: Arc<Settings>,
    observer: Arc<dyn Observer>,
    opens: mpsc::UnboundedReceiver<OpenTopic>,
    announced: Arc<Announced>,
    topics: Vec<TopicState>,
    by_name: HashMap<Arc<str>, usize>,
    brokers: HashMap<i32, Broker>,
    /// A connection for questions that any broker can answer.
    any: Option<Connection>,
    producer_id: Option<i64>,
    asks_producer_id: bool,
    metadata: Refresh,
    tasks: FuturesUnordered<Task>,
}

struct TopicState {
    name: Arc<str>,
    /// None until its partitions are known.
    topic: Option<Topic>,
    partitions: Vec<Partition>,
    waiting: Vec<oneshot::Sender<Result<Topic>>>,
}

struct Partition {
    queue: PartitionQueue<Outgoing>,
    producer_id: Option<i64>,
    leader: Option<i32>,
    /// Failures in a row, and the pause after the last one.
    failures: u32,
    not_before: Option<Instant>,
    last_sent: Option<Instant>,
    /// It is among the [`Broker::active`] of its leader.
    is_listed: bool,
    last_refusal: Option<Refusal>,
}

struct Broker {
    host: String,
    port: u16,
    link: Link,
    requests: usize,
    failures: u32,
    /// Partitions that have something to send, each to be looked at in turn.
    active: VecDeque<(usize, usize)>,
}

enum Link {
    Down { not_before: Option<Instant> },
    Connecting,
    Up(Connection),
}

/// Schedule for asking for the metadata.
struct Refresh {
    due: Instant,
    is_asking: bool,
    failures: u32,
}

impl Driver {
    pub fn new(
        settings: Arc<Settings>,
        observer: Arc<dyn Observer>,
        opens: mpsc::UnboundedReceiver<OpenTopic>,
    ) -> Self {
        Driver {
            settings,
            observer,
            opens,
            announced: Arc::default(),
            topics: Vec::new(),
            by_name: HashMap::new(),
            brokers: HashMap::new(),
            any: None,
            producer_id: None,
            asks_producer_id: false,
            metadata: Refresh { due: Instant::now(), is_asking: false, failures: 0 },
            tasks: FuturesUnordered::new(),
        }
    }

    pub async fn run(mut self) {
        let mut is_wanted = true;
        while is_wanted || !self.is_at_rest() {
            let (announced, due) = (Arc::clone(&self.announced), self.next_due());
            tokio::select! {
                open = self.opens.recv(), if is_wanted => match open {
                    Some(open) => self.open(open),
                    None => is_wanted = false,
                },
                () = announced.alarm.notified() => {}
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.done(done),
                () = sleep_until(due) => {}
            }
            self.list_announced();
            self.ask();
            self.send();
        }
    }

    fn is_at_rest(&self) -> bool {
        let at_rest = |topic: &TopicState| {
            let handle = topic.topic.as_ref();
            topic.partitions.iter().enumerate().all(|(place, partition)| {
                partition.queue.is_empty() && handle.is_none_or(|handle| !handle.0.has_some(place))
            })
        };
        self.topics.iter().all(at_rest)
    }

    fn open(&mut self, OpenTopic { name, answer }: OpenTopic) {
        let place = *self.by_name.entry(Arc::clone(&name)).or_insert_with(|| {
            let (partitions, waiting) = (Vec::new(), Vec::new());
            self.topics.push(TopicState { name, topic: None, partitions, waiting });
            self.topics.len() - 1
        });
        // What is known of it may be old.
        self.topics[place].waiting.push(answer);
        self.refresh_metadata();
    }

    /// Lists partitions with new records where their leaders find them.
    fn list_announced(&mut self) {
        for place in self.announced.take() {
            let Some(handle) = self.topics[place].topic.clone() else { continue };
            for partition in handle.0.filled() {
                self.list(place, partition);
            }
        }
    }

    fn list(&mut self, topic: usize, place: usize) {
        let Some(partition) = self.topics[topic].partitions.get_mut(place) else { return };
        let broker = partition.leader.and_then(|leader| self.brokers.get_mut(&leader));
        if let Some(broker) = broker
            && !partition.is_listed
        {
            partition.is_listed = true;
            broker.active.push_back((topic, place));
        }
    }

    /// The next moment at which something has to be looked at, without anyone saying so.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        let mut due = now + self.settings.metadata_max_age;
        if !self.metadata.is_asking && !self.topics.is_empty() {
            due = due.min(self.metadata.due);
        }
        // What is past and still waits, waits for something else.
        for broker in self.brokers.values().filter(|broker| !broker.active.is_empty()) {
            let next = match &broker.link {
                Link::Down { not_before } => *not_before,
                Link::Up(_) if broker.requests < MAX_REQUESTS => {
                    let pauses = broker.active.iter();
                    let pauses = pauses.map(|(t, p)| self.topics[*t].partitions[*p].not_before);
                    pauses.flatten().filter(|at| *at > now).min()
                }
                _ => None,
            };
            due = next.filter(|at| *at > now).map_or(due, |at| due.min(at));
        }
        due
    }

    /// Asks for what is not known: the metadata, a producer id.
    fn ask(&mut self) {
        let now = Instant::now();
        if !self.metadata.is_asking && now >= self.metadata.due && !self.topics.is_empty() {
            self.metadata.is_asking = true;
            let wanted = self.topics.iter().filter(|topic| topic.is_wanted());
            let names = wanted.map(|topic| topic_name(&topic.name));
            let topics = names.map(|name| MetadataRequestTopic::default().with_name(Some(name)));
            let request = MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false);
            let asking = self.anyone();
            self.tasks.push(Box::pin(async move {
                Done::Metadata(asking.ask(&request, METADATA_VERSION).await)
            }));
        }
        if self.producer_id.is_none() && !self.asks_producer_id && !self.brokers.is_empty() {
            self.asks_producer_id = true;
            // Without a transactional id, the time-out means nothing.
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let asking = self.anyone();
            self.tasks.push(Box::pin(async move {
                let answer = asking.ask(&request, 4).await;
                Done::ProducerId(answer.and_then(|(connection, answer)| {
                    let InitProducerIdResponse { error_code, producer_id, .. } = answer;
                    check(error_code, None, || "cannot get a producer id".into())?;
                    Ok((connection, producer_id.0))
                }))
            }));
        }
    }

    fn anyone(&self) -> Anyone {
        let known = self.brokers.values().map(|broker| (broker.host.clone(), broker.port));
        let first = self.settings.bootstrap.iter().filter_map(|address| {
            let (host, port) = address.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some((host.to_owned(), port.parse().ok()?))
        });
        let addresses = first.chain(known).collect();
        let open = self.any.clone().filter(|connection| !connection.is_closed());
        Anyone { settings: Arc::clone(&self.settings), open, addresses }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Metadata(Ok((connection, metadata))) => {
                self.any = Some(connection);
                self.metadata.is_asking = false;
                self.known(metadata);
            }
            Done::Metadata(Err(error)) => {
                self.observer.trouble(None, &error);
                self.any = None;
                let failures = self.metadata.failures;
                self.metadata = Refresh {
                    due: Instant::now() + self.pause(failures),
                    is_asking: false,
                    failures: failures + 1,
                };
            }
            Done::ProducerId(Ok((connection, id))) => {
                self.any = Some(connection);
                (self.producer_id, self.asks_producer_id) = (Some(id), false);
            }
            Done::ProducerId(Err(error)) => {
                self.observer.trouble(None, &error);
                (self.any, self.asks_producer_id) = (None, false);
                self.refresh_metadata();
            }
            Done::Connected { broker, connection } => self.connected(broker, connection),
            Done::Produced { broker, sent, answer } => self.produced(broker, sent, answer),
        }
    }

    /// Takes over who leads what.
    fn known(&mut self, metadata: MetadataResponse) {
        let now = Instant::now();
        for broker in metadata.brokers {
            let (host, port) = (broker.host.to_string(), broker.port as u16);
            let known = self.brokers.entry(broker.node_id.0).or_insert_with(|| Broker {
                host: host.clone(),
                port,
                link: Link::Down { not_before: None },
                requests: 0,
                failures: 0,
                active: VecDeque::new(),
            });
            if (known.host.as_str(), known.port) != (host.as_str(), port) {
                (known.host, known.port) = (host, port);
                known.link = Link::Down { not_before: None };
            }
        }
        let mut is_complete = true;
        for answer in metadata.topics {
            let name = answer.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            let Some(&place) = self.by_name.get(name.as_str()) else { continue };
            let found = check(answer.error_code, None, || format!("topic {name}"));
            if let Err(error) = found {
                is_complete &= self.topics[place].topic.is_none();
                self.observer.trouble(Some(&name), &error);
                for waiting in self.topics[place].waiting.drain(..) {
                    let _ = waiting.send(Err(error.clone()));
                }
                continue;
            }
            let mut partitions = answer.partitions;
            partitions.sort_by_key(|partition| partition.partition_index);
            is_complete &= partitions.iter().all(|partition| partition.leader_id.0 >= 0);
            self.topic_known(place, &partitions);
        }
        let failures = self.metadata.failures;
        self.metadata.failures = if is_complete { 0 } else { failures + 1 };
        let pause = if is_complete { self.settings.metadata_max_age } else { self.pause(failures) };
        self.metadata.due = now + pause;
    }

    fn topic_known(
        &mut self,
        place: usize,
        answer: &[kafka_protocol::messages::metadata_response::MetadataResponsePartition],
    ) {
        let state = &mut self.topics[place];
        let count = answer.len();
        let handle = state.topic.get_or_insert_with(|| {
            let announced = Arc::clone(&self.announced);
            let bytes = self.settings.batch_bytes;
            Topic::new(Arc::clone(&state.name), place, count, bytes, announced)
        });
        let handle = handle.clone();
        if count > state.partitions.len() {
            if !state.partitions.is_empty() {
                self.observer.grown(&state.name, state.partitions.len(), count);
            }
            state.partitions.resize_with(count, Partition::new);
            handle.0.grow(count);
        }
        for waiting in state.waiting.drain(..) {
            let _ = waiting.send(Ok(handle.clone()));
        }
        for partition in answer {
            let Ok(index) = usize::try_from(partition.partition_index) else { continue };
            let leader = Some(partition.leader_id.0).filter(|leader| *leader >= 0);
            self.led_by(place, index, leader);
        }
    }

    /// Another broker leads a partition; what is in flight to the old one ends first.
    fn led_by(&mut self, topic: usize, place: usize, leader: Option<i32>) {
        let state = &mut self.topics[topic];
        let Some(partition) = state.partitions.get_mut(place) else { return };
        if partition.leader != leader && partition.queue.in_flight() == 0 {
            let old = partition.leader.and_then(|old| self.brokers.get_mut(&old));
            if let Some(old) = old {
                old.active.retain(|active| *active != (topic, place));
            }
            (partition.leader, partition.is_listed) = (leader, false);
        }
        let has_some = !partition.queue.is_empty()
            || state.topic.as_ref().is_some_and(|topic| topic.0.has_some(place));
        if has_some {
            self.list(topic, place);
        }
    }

    fn connected(&mut self, id: i32, connection: Result<Connection>) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        match connection {
            Ok(connection) => {
                broker.failures = 0;
                self.observer.connected(&connection.address);
                broker.link = Link::Up(connection);
            }
            Err(error) => {
                let failures = broker.failures;
                broker.failures += 1;
                let pause = pause(&self.settings, failures);
                broker.link = Link::Down { not_before: Some(Instant::now() + pause) };
                self.observer.trouble(None, &error);
                self.refresh_metadata();
            }
        }
    }

    fn produced(&mut self, id: i32, sent: Vec<Sent>, answer: Result<ProduceResponse>) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.requests -= 1;
            if answer.is_err() && matches!(&broker.link, Link::Up(link) if link.is_closed()) {
                broker.link = Link::Down { not_before: None };
            }
        }
        let answers = match &answer {
            Ok(response) => by_partition(response),
            Err(error) => {
                self.observer.trouble(None, error);
                self.refresh_metadata();
                HashMap::new()
            }
        };
        for Sent { topic, partition, token } in sent {
            let name = Arc::clone(&self.topics[topic].name);
            let judged = answers.get(&(&*name, partition as i32)).map(|answer| judge(answer));
            let judged = judged.unwrap_or(Judged {
                answer: Answer::Unknown,
                refusal: None,
                is_misplaced: true,
            });
            self.answered(topic, partition, token, judged);
        }
    }

    fn answered(&mut self, topic: usize, place: usize, token: Token, judged: Judged) {
        let Judged { answer, refusal, is_misplaced } = judged;
        let name = Arc::clone(&self.topics[topic].name);
        let partition = &mut self.topics[topic].partitions[place];
        match &answer {
            Answer::Acknowledged => (partition.failures, partition.not_before) = (0, None),
            // It goes again at once, without what was refused.
            Answer::Refused(_) | Answer::TooLarge | Answer::SequenceLost => {}
            Answer::NotNow | Answer::Unknown => {
                let pause = pause(&self.settings, partition.failures);
                partition.failures += 1;
                partition.not_before = Some(Instant::now() + pause);
            }
        }
        if let Some(refusal) = refusal {
            if !matches!(answer, Answer::Refused(_) | Answer::TooLarge | Answer::Acknowledged) {
                let error = Error::Broker {
                    what: format!("partition {place} of topic {name}"),
                    code: refusal.code,
                    message: refusal.message.clone(),
                };
                self.observer.trouble(Some(&name), &error);
            }
            partition.last_refusal = Some(refusal);
        }
        for event in partition.queue.answered(token, answer) {
            match event {
                Event::Acknowledged(batch) => batch.receipts.acknowledged(),
                Event::Refused(batch) | Event::TooLarge(batch) => {
                    let refusal = partition.last_refusal.clone();
                    let unknown = Refusal { code: Code::InvalidRecord, message: None };
                    batch.receipts.refused(&refusal.unwrap_or(unknown));
                }
            }
        }
        if is_misplaced {
            self.refresh_metadata();
        }
        self.list(topic, place);
    }

    /// Sends what can be sent.
    fn send(&mut self) {
        let ids: Vec<i32> = self.brokers.keys().copied().collect();
        for id in ids {
            while self.send_to(id) {}
        }
    }

    /// Sends one request to a broker; false where there is nothing to send, or no way.
    fn send_to(&mut self, id: i32) -> bool {
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        if broker.active.is_empty() || broker.requests >= MAX_REQUESTS {
            return false;
        }
        let Some(producer_id) = self.producer_id else { return false };
        let connection = match &broker.link {
            Link::Up(connection) if !connection.is_closed() => connection.clone(),
            Link::Connecting => return false,
            Link::Down { not_before: Some(at) } if Instant::now() < *at => return false,
            Link::Up(_) | Link::Down { .. } => {
                broker.link = Link::Connecting;
                let (settings, host, port) =
                    (Arc::clone(&self.settings), broker.host.clone(), broker.port);
                self.tasks.push(Box::pin(async move {
                    let connection = Connection::open(&settings, &host, port).await;
                    Done::Connected { broker: id, connection }
                }));
                return false;
            }
        };
        let mut request = Request::default();
        for _ in 0..broker.active.len() {
            let Some((topic, place)) = broker.active.pop_front() else { break };
            let state = &mut self.topics[topic];
            let Some(partition) = state.partitions.get_mut(place) else { continue };
            let is_done = partition.next(
                producer_id,
                &self.settings,
                state.topic.as_ref(),
                topic,
                place,
                &mut request,
            );
            match is_done {
                true => partition.is_listed = false,
                false => broker.active.push_back((topic, place)),
            }
            if request.bytes >= MAX_REQUEST_BYTES {
                break;
            }
        }
        if request.needs_producer_id {
            self.producer_id = None;
        }
        if request.sent.is_empty() {
            return false;
        }
        let limit = (self.settings.request_timeout / 2).as_millis();
        let (topics, sent) = request.finish(&self.topics);
        let produce = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(limit).unwrap_or(i32::MAX))
            .with_topic_data(topics);
        broker.requests += 1;
        let pending = connection.send(&produce, PRODUCE_VERSION);
        self.tasks.push(Box::pin(async move {
            let answer = match pending {
                Ok(pending) => pending.wait().await,
                Err(error) => Err(error),
            };
            Done::Produced { broker: id, sent, answer }
        }));
        true
    }

    fn refresh_metadata(&mut self) {
        self.metadata.due = self.metadata.due.min(Instant::now() + METADATA_PAUSE);
    }

    fn pause(&self, failures: u32) -> Duration {
        pause(&self.settings, failures)
    }
}

impl TopicState {
    /// Somebody has it, or asks for it.
    fn is_wanted(&self) -> bool {
        self.topic.is_some() || !self.waiting.is_empty()
    }
}

impl Partition {
    fn new() -> Self {
        Partition {
            queue: PartitionQueue::new(0),
            producer_id: None,
            leader: None,
            failures: 0,
            not_before: None,
            last_sent: None,
            is_listed: false,
            last_refusal: None,
        }
    }

    /// Adds the next batch to a request, if one may be sent now; true where there is nothing
    /// left to send later.
    fn next(
        &mut self,
        producer_id: i64,
        settings: &Settings,
        handle: Option<&Topic>,
        topic: usize,
        place: usize,
        request: &mut Request,
    ) -> bool {
        let now = Instant::now();
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        if self.queue.needs_producer_id() {
            if self.producer_id == Some(producer_id) {
                request.needs_producer_id = true;
                return false;
            }
            self.producer_id = None;
            self.queue.restart(0);
        }
        if self.last_sent.is_some_and(|last| now - last > LONG_REST) {
            self.queue.rested();
        }
        if self.queue.has_room()
            && let Some(collected) = handle.and_then(|handle| handle.0.take(place))
        {
            let batch = collected.batch.finish(settings.compression, settings.compression_level);
            self.queue.push(Outgoing { batch, receipts: collected.receipts });
        }
        let id = *self.producer_id.get_or_insert(producer_id);
        if let Some(send) = self.queue.next_send() {
            self.last_sent = Some(now);
            let stamp = Stamp {
                producer_id: id,
                epoch: send.epoch,
                base_sequence: send.base_sequence,
                is_transactional: false,
            };
            let records = send.batch.batch.stamped(stamp);
            request.bytes += records.len();
            let data = PartitionProduceData::default()
                .with_index(place as i32)
                .with_records(Some(records));
            request.by_topic.entry(topic).or_default().push(data);
            request.sent.push(Sent { topic, partition: place, token: send.token });
        }
        // What is in flight is listed again with its answer.
        let waits = self.queue.waits() || handle.is_some_and(|handle| handle.0.has_some(place));
        !waits
    }
}

/// A request that is being put together.
#[derive(Default)]
struct Request {
    by_topic: HashMap<usize, Vec<PartitionProduceData>>,
    sent: Vec<Sent>,
    bytes: usize,
    /// The epochs of the present one are used up on some partition.
    needs_producer_id: bool,
}

impl Request {
    fn finish(self, topics: &[TopicState]) -> (Vec<TopicProduceData>, Vec<Sent>) {
        let data = self.by_topic.into_iter().map(|(topic, partitions)| {
            TopicProduceData::default()
                .with_name(topic_name(&topics[topic].name))
                .with_partition_data(partitions)
        });
        (data.collect(), self.sent)
    }
}

/// A question that any broker can answer.
struct Anyone {
    settings: Arc<Settings>,
    open: Option<Connection>,
    addresses: Vec<(String, u16)>,
}

impl Anyone {
    /// Asks the broker of the open connection, else one after the other.
    async fn ask<R: kafka_protocol::protocol::Request>(
        self,
        request: &R,
        most: i16,
    ) -> Result<(Connection, R::Response)> {
        let mut failed = None;
        if let Some(connection) = self.open {
            match connection.call(request, most).await {
                Ok(answer) => return Ok((connection, answer)),
                Err(error) => failed = Some(error),
            }
        }
        for (host, port) in &self.addresses {
            let asked = async {
                let connection = Connection::open(&self.settings, host, *port).await?;
                let answer = connection.call(request, most).await?;
                Ok((connection, answer))
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::Protocol {
            address: self.settings.bootstrap.join(",").into(),
            what: "no broker is known; each is host:port".into(),
        }))
    }
}

type Answers<'a> = HashMap<
    (&'a str, i32),
    &'a kafka_protocol::messages::produce_response::PartitionProduceResponse,
>;

fn by_partition(response: &ProduceResponse) -> Answers<'_> {
    let all = response.responses.iter().flat_map(|topic| {
        let name: &str = &topic.name;
        topic.partition_responses.iter().map(move |partition| ((name, partition.index), partition))
    });
    all.collect()
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Grows with each failure, and differs from one partition to the next.
fn pause(settings: &Settings, failures: u32) -> Duration {
    let pause = settings.backoff.saturating_mul(1 << failures.min(16)).min(settings.backoff_max);
    let mut random = [0; 1];
    // Without randomness all wait alike, which is no error.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(0.8 + 0.4 * f64::from(random[0]) / 255.0)
}
