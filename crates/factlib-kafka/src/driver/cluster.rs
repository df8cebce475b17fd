//! Keeps the driver's view of the cluster: brokers, their connections, partition leaders, and the
//! producer id.

use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse, ProducerId,
    metadata_request::MetadataRequestTopic, metadata_response::MetadataResponsePartition,
};

use super::{
    Arc, Closing, Connection, Done, Driver, Duration, Error, Identity, Instant, Lease, Result,
    Topic, VecDeque, oneshot, pace::Pace, pause, topic_name,
};
use crate::{broker_pool::BrokerPool, error::check};

/// Time in which the topics that are opened are collected for one metadata request.
pub(super) const OPENING_PAUSE: Duration = Duration::from_millis(20);

/// Newest version that identifies topics by name.
const METADATA_VERSION: i16 = 12;

pub(super) struct Broker {
    pub host: String,
    pub port: u16,
    pub link: Link,
    /// The connection that was used last.
    watched: Option<Watched>,
    /// Address of the connection that the observer takes for open.
    reported: Option<Arc<str>>,
    pub requests: usize,
    pub pace: Pace,
    pub failures: u32,
    /// The throttle in the last response, past or present.
    pub throttle: Option<Throttle>,
    /// Partitions that have something to send, in turn.
    pub active: VecDeque<(usize, usize)>,
}

impl Broker {
    /// Marks the connection as closed, if it is. The next one is not throttled at first.
    pub fn notice_end(&mut self) {
        if matches!(&self.link, Link::Up(link) if link.is_closed()) {
            self.link = Link::Down { not_before: None };
            self.throttle = None;
        }
    }
}

/// A connection whose end the driver waits for, also while it is in the pool.
struct Watched {
    serial: u64,
    /// Dropping it ends the wait.
    _end: oneshot::Sender<()>,
}

/// The pause that a broker demands because the client has exceeded a quota.
pub(super) struct Throttle {
    pub until: Instant,
    /// Time of the next report.
    pub report_at: Instant,
}

/// Time between reports of a throttle, and before the first one.
const THROTTLE_REPORTS: Duration = Duration::from_secs(1);

impl Throttle {
    pub fn new(pause: Duration) -> Self {
        let now = Instant::now();
        Throttle { until: now + pause, report_at: now + THROTTLE_REPORTS }
    }

    /// Returns true if records have waited for another while, and schedules the next report.
    pub fn is_to_be_reported(&mut self, now: Instant) -> bool {
        let is_due = now >= self.report_at;
        if is_due {
            self.report_at = now + THROTTLE_REPORTS;
        }
        is_due
    }
}

pub(super) enum Link {
    Down {
        not_before: Option<Instant>,
    },
    /// A connection is being opened, is logging in again, or is waited for.
    Connecting,
    /// Requests are in flight, or are about to be sent.
    Up(Lease),
}

impl Driver {
    /// Requests metadata and a producer id when they are due.
    pub(super) fn request_updates(&mut self) {
        let now = Instant::now();
        let mut wanted = self.topics.iter().filter(|topic| topic.is_wanted()).peekable();
        if self.metadata_schedule.is_due(now) && wanted.peek().is_some() {
            let names = wanted.map(|topic| topic_name(&topic.name));
            let topics = names.map(|name| MetadataRequestTopic::default().with_name(Some(name)));
            let request = MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false);
            // The response lacks topics that are opened from now on; they bring the next forward.
            self.metadata_schedule.begin(self.settings.metadata_max_age);
            let brokers = self.broker_pool();
            self.tasks.push(Box::pin(async move {
                let answer = brokers.request(&request, METADATA_VERSION).await;
                Done::Metadata(
                    answer.map(|(connection, answer)| (connection.host_and_port(), answer)),
                )
            }));
        }
        let is_fresh = self.identity.is_some_and(|identity| identity.serial >= self.fresh_from);
        let is_needed = !is_fresh && self.transaction.is_none();
        if is_needed && self.identity_schedule.is_due(now) && !self.brokers.is_empty() {
            self.identity_schedule.begin(Duration::ZERO);
            // Without a transactional id, the time-out has no effect.
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let brokers = self.broker_pool();
            self.tasks.push(Box::pin(async move {
                let answer = brokers.request(&request, 4).await;
                Done::ProducerId(answer.and_then(|(connection, answer)| {
                    let InitProducerIdResponse { error_code, producer_id, .. } = answer;
                    check(error_code, None, || "cannot get a producer id".into())?;
                    Ok((connection.host_and_port(), producer_id.0))
                }))
            }));
        }
    }

    /// Returns all brokers, for requests that any of them can answer.
    pub(super) fn broker_pool(&self) -> BrokerPool {
        BrokerPool {
            settings: Arc::clone(&self.settings),
            preferred: self.any_broker.clone(),
            discovered: self.discovered(),
            skipped: self.useless_answers,
        }
    }

    /// Returns the brokers that metadata named, in the order of their ids.
    fn discovered(&self) -> Vec<(String, u16)> {
        let mut all: Vec<_> = self.brokers.iter().collect();
        all.sort_by_key(|(id, _)| **id);
        all.into_iter().map(|(_, broker)| (broker.host.clone(), broker.port)).collect()
    }

    /// Asks another broker first from now on, if there is one: this one may know less than others,
    /// or answer nothing.
    fn give_up_broker(&mut self) {
        if self.broker_pool().addresses().len() > 1 {
            self.any_broker = None;
            self.useless_answers = self.useless_answers.wrapping_add(1);
        }
    }

    /// Gives up the broker of a request that failed.
    fn request_failed(&mut self, error: &Error) {
        self.observer.trouble(None, error);
        self.any_broker = None;
        // Attempts to connect are made to all of them.
        if error.code().is_some() || matches!(error, Error::Protocol { .. }) || is_late(error) {
            self.give_up_broker();
        }
    }

    /// Requests metadata soon, because a leader may have moved.
    pub(super) fn refresh_metadata(&mut self) {
        self.metadata_schedule.retry(&self.settings);
    }

    pub(super) fn handle_metadata(&mut self, answer: Result<((String, u16), MetadataResponse)>) {
        match answer {
            Ok((broker, metadata)) => {
                self.any_broker = Some(broker.clone());
                let has_errors = metadata.topics.iter().any(|topic| {
                    let mut partitions = topic.partitions.iter();
                    topic.error_code != 0 || partitions.any(|partition| partition.leader_id.0 < 0)
                });
                self.apply_metadata(metadata);
                self.end_pause(&broker);
                if has_errors || self.has_dead_leader() {
                    self.give_up_broker();
                }
            }
            Err(error) => {
                self.request_failed(&error);
                self.metadata_schedule.failed(&self.settings);
            }
        }
    }

    /// Ends the pause before the next attempt to connect to a broker that has just answered.
    fn end_pause(&mut self, (host, port): &(String, u16)) {
        for broker in self.brokers.values_mut() {
            if let Link::Down { not_before: not_before @ Some(_) } = &mut broker.link
                && (&broker.host, &broker.port) == (host, port)
            {
                *not_before = None;
            }
        }
    }

    /// Returns true if records wait for a broker that accepts no connection: perhaps another one
    /// leads their partitions soon.
    fn has_dead_leader(&self) -> bool {
        self.brokers.values().any(|broker| broker.failures > 0 && !broker.active.is_empty())
    }

    pub(super) fn handle_producer_id(&mut self, answer: Result<((String, u16), i64)>) {
        match answer {
            Ok((broker, producer_id)) => {
                self.any_broker = Some(broker);
                self.identity_schedule.succeeded(Duration::ZERO);
                self.identity_schedule.retries = 0;
                self.set_identity(producer_id, 0);
            }
            Err(error) => {
                self.request_failed(&error);
                self.identity_schedule.failed(&self.settings);
            }
        }
    }

    pub(super) fn set_identity(&mut self, producer_id: i64, epoch: i16) {
        self.identities += 1;
        self.identity = Some(Identity { producer_id, epoch, serial: self.identities });
    }

    /// Updates brokers, topics and leaders from a metadata response.
    fn apply_metadata(&mut self, metadata: MetadataResponse) {
        for broker in metadata.brokers {
            let (host, port) = (broker.host.to_string(), broker.port as u16);
            let known = self.brokers.entry(broker.node_id.0).or_insert_with(|| Broker {
                host: host.clone(),
                port,
                link: Link::Down { not_before: None },
                watched: None,
                reported: None,
                requests: 0,
                pace: Pace::new(),
                failures: 0,
                throttle: None,
                active: VecDeque::new(),
            });
            if (known.host.as_str(), known.port) != (host.as_str(), port) {
                (known.host, known.port) = (host, port);
                // Requests to the old address must end before requests go to the new one.
                if known.requests == 0 && matches!(known.link, Link::Up(_)) {
                    known.link = Link::Down { not_before: None };
                }
            }
        }
        let mut is_complete = true;
        for answer in metadata.topics {
            let name = answer.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            let Some(&place) = self.by_name.get(name.as_str()) else { continue };
            let found = check(answer.error_code, None, || format!("topic {name}"));
            let state = &mut self.topics[place];
            let mut partitions = answer.partitions;
            // Only some partitions lack a leader; the others are usable.
            let is_usable = found.is_ok() || !partitions.is_empty() && state.topic.is_some();
            if let Err(error) = found {
                is_complete &= state.topic.is_none();
                if state.topic.is_some() {
                    state.is_missing = true;
                    self.observer.trouble(Some(&name), &error);
                }
                if !is_usable {
                    for waiting in state.waiting.drain(..) {
                        let _ = waiting.send(Err(error.clone()));
                    }
                    continue;
                }
            } else if std::mem::take(&mut state.is_missing) && state.failing == 0 {
                self.observer.recovered(&name);
            }
            partitions.sort_by_key(|partition| partition.partition_index);
            is_complete &= partitions.iter().all(|partition| partition.leader_id.0 >= 0);
            self.apply_topic_metadata(place, &partitions);
        }
        if is_complete && !self.has_dead_leader() {
            self.metadata_schedule.succeeded(self.settings.metadata_max_age);
        } else {
            self.metadata_schedule.failed(&self.settings);
        }
    }

    fn apply_topic_metadata(&mut self, place: usize, metadata: &[MetadataResponsePartition]) {
        let state = &mut self.topics[place];
        let count = metadata.len();
        if count < state.partitions.len() {
            // The topic was deleted and created again. Keys map to other partitions now, so
            // senders have to open the topic again.
            let waiting = std::mem::take(&mut state.waiting);
            let name = Arc::clone(&state.name);
            self.close(place);
            waiting.into_iter().for_each(|waiting| self.open(Arc::clone(&name), waiting));
            return;
        }
        let handle = state.topic.get_or_insert_with(|| {
            let announced = Arc::clone(&self.announced);
            let bytes = self.settings.batch_bytes;
            Topic::new(Arc::clone(&state.name), place, count, bytes, announced)
        });
        let handle = handle.clone();
        handle.0.grow_batches();
        self.add_partitions_found(place, count);
        let state = &mut self.topics[place];
        // Callers that open a stopped topic wait until it is closed.
        if matches!(state.closing, Closing::No) {
            for waiting in state.waiting.drain(..) {
                let _ = waiting.send(Ok(handle.clone()));
            }
        }
        for partition in metadata {
            let Ok(index) = usize::try_from(partition.partition_index) else { continue };
            let leader = Some(partition.leader_id.0).filter(|leader| *leader >= 0);
            self.set_leader(place, index, leader);
        }
    }

    /// Sets the leader of a partition, unless batches are in flight to the old leader.
    fn set_leader(&mut self, topic: usize, place: usize, leader: Option<i32>) {
        let open_transaction = self.open_transaction();
        let state = &mut self.topics[topic];
        let last_round = state.last_round(open_transaction);
        let Some(partition) = state.partitions.get_mut(place) else { return };
        if partition.leader != leader && partition.queue.in_flight() == 0 {
            let old = partition.leader.and_then(|old| self.brokers.get_mut(&old));
            if let Some(old) = old {
                old.active.retain(|active| *active != (topic, place));
            }
            (partition.leader, partition.is_enqueued) = (leader, false);
            // The pauses were for the old leader.
            (partition.not_before, partition.failures) = (None, partition.failures.min(1));
            // The others may follow soon.
            self.metadata_schedule.retries = 0;
        }
        let has_records = !partition.queue.is_empty()
            || state.topic.as_ref().is_some_and(|topic| topic.0.has_records(place, last_round));
        if has_records {
            self.enqueue_partition(topic, place);
        }
    }

    /// Returns the connection to a broker. If there is none, takes an idle one, or starts to open
    /// one.
    pub(super) fn connection_to(&mut self, id: i32) -> Option<Connection> {
        let broker = self.brokers.get_mut(&id)?;
        match &broker.link {
            Link::Connecting => return None,
            Link::Up(connection) if !connection.is_closed() => {
                if !connection.is_login_due() {
                    return Some(Connection::clone(connection));
                }
                // No other request may be in flight during a login.
                if broker.requests > 0 {
                    return None;
                }
            }
            Link::Down { not_before: Some(at) } if Instant::now() < *at => return None,
            Link::Up(_) | Link::Down { .. } => {}
        }
        // This puts the former connection back.
        broker.link = Link::Connecting;
        if let Some(idle) = Lease::take_idle(&self.settings, &broker.host, broker.port) {
            let connection = Connection::clone(&idle);
            self.connected(id, Ok(idle));
            return Some(connection);
        }
        let (settings, host, port) = (Arc::clone(&self.settings), broker.host.clone(), broker.port);
        self.tasks.push(Box::pin(async move {
            Done::Connected { broker: id, connection: Lease::take(&settings, &host, port).await }
        }));
        None
    }

    /// Handles the result of taking or opening a connection.
    pub(super) fn connected(&mut self, id: i32, connection: Result<Lease>) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        match connection {
            Ok(connection) => {
                broker.failures = 0;
                self.watch(id, &connection);
                if let Some(broker) = self.brokers.get_mut(&id) {
                    broker.link = Link::Up(connection);
                }
            }
            Err(error) => {
                let pause = pause(&self.settings, broker.failures);
                broker.failures += 1;
                broker.link = Link::Down { not_before: Some(Instant::now() + pause) };
                if let Some(address) = broker.reported.take() {
                    self.observer.disconnected(&address, Some(&error));
                }
                self.observer.trouble(None, &error);
                self.refresh_metadata();
            }
        }
    }

    /// Waits for the end of a connection, and reports it unless the observer takes one for open.
    fn watch(&mut self, id: i32, connection: &Connection) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        let serial = connection.serial;
        if broker.watched.as_ref().is_none_or(|watched| watched.serial != serial) {
            let (end, ended) = oneshot::channel();
            broker.watched = Some(Watched { serial, _end: end });
            let closed = connection.closed();
            self.tasks.push(Box::pin(async move {
                tokio::select! {
                    error = closed => Done::Closed { broker: id, serial, error },
                    _ = ended => Done::Unwatched,
                }
            }));
        }
        let address = &connection.address;
        if broker.reported.as_ref() == Some(address) {
            return;
        }
        if let Some(former) = broker.reported.replace(Arc::clone(address)) {
            self.observer.disconnected(&former, None);
        }
        self.observer.connected(address);
    }

    /// Handles the end of the connection that was used last, which may be in the pool.
    pub(super) fn closed(&mut self, id: i32, serial: u64, error: Option<Error>) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        if broker.watched.take_if(|watched| watched.serial == serial).is_none() {
            return;
        }
        // The pool has closed the connection without an error if it needs fewer of them.
        if (error.is_some() || matches!(broker.link, Link::Up(_)))
            && let Some(address) = broker.reported.take()
        {
            self.observer.disconnected(&address, error.as_ref());
        }
        broker.notice_end();
    }

    /// Puts the connections without requests in flight back into the pool. A throttled one would hold
    /// up its next user.
    pub(super) fn put_back_connections(&mut self) {
        let now = Instant::now();
        for broker in self.brokers.values_mut() {
            let is_throttled = broker.throttle.as_ref().is_some_and(|at| now < at.until);
            if broker.requests == 0 && !is_throttled && matches!(broker.link, Link::Up(_)) {
                broker.link = Link::Down { not_before: None };
            }
        }
    }
}

/// Returns true if a broker accepted the connection and did not answer the request in time.
fn is_late(error: &Error) -> bool {
    matches!(error, Error::TimedOut { request: "Metadata" | "InitProducerId", .. })
}
