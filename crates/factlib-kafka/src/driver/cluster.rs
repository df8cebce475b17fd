//! The cluster as the driver knows it: brokers, their connections, leaders, and the producer id.

use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse, ProducerId,
    metadata_request::MetadataRequestTopic, metadata_response::MetadataResponsePartition,
};

use super::{
    Arc, Connection, Done, Driver, Duration, Error, Identity, Instant, Partition, Result, Topic,
    VecDeque, pause, topic_name,
};
use crate::{anyone::Anyone, error::check};

/// Metadata is not asked for more often.
const METADATA_PAUSE: Duration = Duration::from_millis(20);

/// The newest version that names topics by their names.
const METADATA_VERSION: i16 = 12;

pub(super) struct Broker {
    pub host: String,
    pub port: u16,
    pub link: Link,
    pub requests: usize,
    pub failures: u32,
    /// The broker wants nothing before, because of a quota.
    pub throttled_until: Option<Instant>,
    /// Partitions that have something to send, each to be looked at in turn.
    pub active: VecDeque<(usize, usize)>,
}

pub(super) enum Link {
    Down {
        not_before: Option<Instant>,
    },
    /// Being made, or logging in again.
    Connecting,
    Up(Connection),
}

impl Driver {
    /// Asks for what is not known: the metadata, a producer id.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        let mut wanted = self.topics.iter().filter(|topic| topic.is_wanted()).peekable();
        if self.asking_metadata.is_due(now) && wanted.peek().is_some() {
            let names = wanted.map(|topic| topic_name(&topic.name));
            let topics = names.map(|name| MetadataRequestTopic::default().with_name(Some(name)));
            let request = MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false);
            self.asking_metadata.is_asking = true;
            let asking = self.anyone();
            self.tasks.push(Box::pin(async move {
                Done::Metadata(asking.ask(&request, METADATA_VERSION).await)
            }));
        }
        let is_fresh = self.identity.is_some_and(|identity| identity.serial >= self.fresh_from);
        let is_needed = !is_fresh && self.transaction.is_none();
        if is_needed && self.asking_identity.is_due(now) && !self.brokers.is_empty() {
            self.asking_identity.is_asking = true;
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

    /// All brokers, for questions that any of them can answer.
    pub(super) fn anyone(&self) -> Anyone {
        let is_usable = |connection: &Connection| {
            !connection.is_closed() && connection.login_due().is_none_or(|due| Instant::now() < due)
        };
        Anyone {
            settings: Arc::clone(&self.settings),
            open: self.any.clone().filter(is_usable),
            known: self.brokers.values().map(|b| (b.host.clone(), b.port)).collect(),
        }
    }

    pub(super) fn refresh_metadata(&mut self) {
        self.asking_metadata.hurry(METADATA_PAUSE);
    }

    pub(super) fn metadata_came(&mut self, answer: Result<(Connection, MetadataResponse)>) {
        match answer {
            Ok((connection, metadata)) => {
                self.any = Some(connection);
                self.known(metadata);
            }
            Err(error) => {
                self.observer.trouble(None, &error);
                self.any = None;
                self.asking_metadata.failed(&self.settings);
            }
        }
    }

    pub(super) fn producer_id_came(&mut self, answer: Result<(Connection, i64)>) {
        match answer {
            Ok((connection, producer_id)) => {
                self.any = Some(connection);
                self.asking_identity.succeeded(Duration::ZERO);
                self.is_known_as(producer_id, 0);
            }
            Err(error) => {
                self.observer.trouble(None, &error);
                self.any = None;
                self.asking_identity.failed(&self.settings);
            }
        }
    }

    pub(super) fn is_known_as(&mut self, producer_id: i64, epoch: i16) {
        self.identities += 1;
        self.identity = Some(Identity { producer_id, epoch, serial: self.identities });
    }

    /// Takes over who leads what.
    fn known(&mut self, metadata: MetadataResponse) {
        for broker in metadata.brokers {
            let (host, port) = (broker.host.to_string(), broker.port as u16);
            let known = self.brokers.entry(broker.node_id.0).or_insert_with(|| Broker {
                host: host.clone(),
                port,
                link: Link::Down { not_before: None },
                requests: 0,
                failures: 0,
                throttled_until: None,
                active: VecDeque::new(),
            });
            if (known.host.as_str(), known.port) != (host.as_str(), port) {
                (known.host, known.port) = (host, port);
                // What is on its way there comes before what goes to the new address.
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
            // Of some partitions the leader is missing: the others are known.
            let is_known = found.is_ok() || !partitions.is_empty() && state.topic.is_some();
            if let Err(error) = found {
                is_complete &= state.topic.is_none();
                if state.topic.is_some() {
                    state.is_missing = true;
                    self.observer.trouble(Some(&name), &error);
                }
                if !is_known {
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
            self.topic_known(place, &partitions);
        }
        if is_complete {
            self.asking_metadata.succeeded(self.settings.metadata_max_age);
        } else {
            self.asking_metadata.failed(&self.settings);
        }
    }

    fn topic_known(&mut self, place: usize, answer: &[MetadataResponsePartition]) {
        let state = &mut self.topics[place];
        let count = answer.len();
        if count < state.partitions.len() {
            // It was deleted and made again: keys go elsewhere now, so whoever sends has to.
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
        if count > state.partitions.len() {
            if !state.partitions.is_empty() {
                self.observer.grown(&state.name, state.partitions.len(), count);
            }
            let is_transactional = self.transaction.is_some();
            state.partitions.resize_with(count, || Partition::new(is_transactional));
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
        let transaction = self.open_transaction();
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
            || state.topic.as_ref().is_some_and(|topic| topic.0.has_some(place, transaction));
        if has_some {
            self.list(topic, place);
        }
    }

    /// The connection to send on; makes it, or logs in again, where there is none.
    pub(super) fn link(&mut self, id: i32) -> Option<Connection> {
        let broker = self.brokers.get_mut(&id)?;
        let now = Instant::now();
        match &broker.link {
            Link::Connecting => None,
            Link::Up(connection) if !connection.is_closed() => {
                if connection.login_due().is_none_or(|due| now < due) {
                    return Some(connection.clone());
                }
                // Nothing else may be on its way then.
                if broker.requests == 0 {
                    let (connection, settings) = (connection.clone(), Arc::clone(&self.settings));
                    broker.link = Link::Connecting;
                    self.tasks.push(Box::pin(async move {
                        let limit = settings.connect_timeout;
                        let address = Arc::clone(&connection.address);
                        let login = tokio::time::timeout(limit, connection.log_in(&settings));
                        let connection = login
                            .await
                            .unwrap_or(Err(Error::TimedOut { address, request: "the login" }));
                        Done::Connected { broker: id, connection, is_again: true }
                    }));
                }
                None
            }
            Link::Down { not_before: Some(at) } if now < *at => None,
            Link::Up(_) | Link::Down { .. } => {
                broker.link = Link::Connecting;
                let (settings, host, port) =
                    (Arc::clone(&self.settings), broker.host.clone(), broker.port);
                self.tasks.push(Box::pin(async move {
                    let connection = Connection::open(&settings, &host, port).await;
                    Done::Connected { broker: id, connection, is_again: false }
                }));
                None
            }
        }
    }

    /// A connection is there, or has logged in again.
    pub(super) fn connected(&mut self, id: i32, connection: Result<Connection>, is_again: bool) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        match connection {
            Ok(connection) => {
                broker.failures = 0;
                broker.throttled_until = None;
                if !is_again {
                    self.observer.connected(&connection.address);
                    let (closed, address) = (connection.closed(), Arc::clone(&connection.address));
                    self.tasks.push(Box::pin(async move {
                        Done::Closed { broker: id, error: closed.await, address }
                    }));
                }
                broker.link = Link::Up(connection);
            }
            Err(error) => {
                let pause = pause(&self.settings, broker.failures);
                broker.failures += 1;
                broker.link = Link::Down { not_before: Some(Instant::now() + pause) };
                self.observer.trouble(None, &error);
                self.refresh_metadata();
            }
        }
    }

    /// A connection ended, perhaps while nothing was on its way.
    pub(super) fn closed(&mut self, id: i32, address: &str, error: Option<Error>) {
        self.observer.disconnected(address, error.as_ref());
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        if matches!(&broker.link, Link::Up(link) if link.is_closed()) {
            broker.link = Link::Down { not_before: None };
        }
    }
}
