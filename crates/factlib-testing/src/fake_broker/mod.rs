//! A fake Kafka cluster inside the test's process: real clients connect to it over TCP, and it
//! fails by script.
//!
//! [`FakeCluster`] serves on the running tokio runtime, in milliseconds and without Java. It keeps
//! records as bytes in memory, assigns offsets, and checks producer ids, epochs and sequences as
//! Apache Kafka does, so that a client which loses or repeats records on a real broker does so
//! here. Everything a broker can answer or do wrong can be scripted, request by request:
//!
//! ```
//! use std::time::Duration;
//!
//! use factlib_testing::fake_broker::{Api, Code, FakeCluster};
//!
//! # async fn example() -> factlib_testing::Result<()> {
//! let cluster = FakeCluster::start().await?;
//! cluster.create_topic("orders", 3)?;
//! // The leader of a new topic is not there yet.
//! cluster.on(Api::Produce).topic("orders").times(3).answer(Code::NotLeaderOrFollower);
//! // A later batch is appended, and its answer lost.
//! cluster.on(Api::Produce).after(10).hang_up_after_effect();
//! // Connect a client to `cluster.bootstrap()`, and then:
//! cluster.broker_down(1).await;
//! cluster.broker_up(1).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Requests
//! ApiVersions, Metadata, CreateTopics, DeleteTopics, CreatePartitions, DescribeConfigs,
//! IncrementalAlterConfigs, InitProducerId, Produce, Fetch, ListOffsets, FindCoordinator,
//! AddPartitionsToTxn and EndTxn, without TLS, logins and consumer groups.
//!
//! # Differences from real brokers
//! A partition has one log, so replicas never diverge: an acknowledged record is never lost, and
//! moving a leader takes effect at once. Records are not looked into: a broker that refuses one is
//! scripted with [`FaultBuilder::refuse_records`]. Topics are not compacted, and `retention.bytes`
//! is the only retention. Transactions have no time-out. A request on a connection waits for the
//! one before it, so [`FaultBuilder::delay`] is no substitute for a distant broker; take
//! [`Proxy`](crate::Proxy) for that.

mod batch;
mod cluster;
mod faults;
mod log;
mod producer_state;
mod requests;
mod script;
mod server;
mod topics;
mod transactions;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use kafka_protocol::{error::ResponseError as Code, messages::ApiKey as Api};

pub use self::script::{FaultBuilder, ScriptedFault};
use self::{
    cluster::Cluster,
    server::{Run, serve},
};
use crate::{Error, ErrorKind, Result, ports::free_port};

/// Rule for the first sequence number of a producer that a partition does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstSequence {
    /// Any number is accepted, as by every Kafka released before August 2026.
    #[default]
    Any,
    /// Only 0 is accepted (KAFKA-19880).
    Zero,
}

/// Settings of a cluster that is not started yet.
#[derive(Clone, Debug)]
#[must_use = "start it"]
pub struct FakeClusterBuilder {
    brokers: i32,
    options: Options,
}

#[derive(Clone, Debug)]
struct Options {
    first_sequence: FirstSequence,
    transaction_version: i16,
    auto_create_topics: bool,
    default_partitions: i32,
    /// Newest version of requests that are limited.
    newest: HashMap<Api, i16>,
}

/// A fake cluster of Kafka brokers; see the [module](self). Dropping it closes all connections.
pub struct FakeCluster {
    shared: Arc<Shared>,
    servers: Mutex<BTreeMap<i32, JoinHandle<()>>>,
}

/// State that the connections share, and the signal that it has changed.
#[derive(Debug)]
struct Shared {
    cluster: Mutex<Cluster>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeClusterBuilder {
    /// Number of brokers, with ids from 1 on; without it, one.
    pub fn brokers(mut self, count: i32) -> Self {
        self.brokers = count;
        self
    }

    /// Rule for first sequence numbers; without it, the old one.
    pub fn first_sequence(mut self, rule: FirstSequence) -> Self {
        self.options.first_sequence = rule;
        self
    }

    /// Level of the feature `transaction.version`: 2 (KIP-890), as without this call, or 1.
    pub fn transaction_version(mut self, level: i16) -> Self {
        self.options.transaction_version = level;
        self
    }

    /// Limits a request to this version and older ones, as an older Kafka does. Below the oldest
    /// version that clients send today, the brokers do not know the request.
    pub fn newest_version(mut self, api: Api, version: i16) -> Self {
        self.options.newest.insert(api, version);
        self
    }

    /// Creates a topic when a client asks for it, if the client wants that.
    pub fn auto_create_topics(mut self) -> Self {
        self.options.auto_create_topics = true;
        self
    }

    /// Partitions of a topic that is created without a number; without this call, one.
    pub fn default_partitions(mut self, count: i32) -> Self {
        self.options.default_partitions = count;
        self
    }

    /// Starts the brokers on the running tokio runtime.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(self) -> Result<FakeCluster> {
        let shared = Shared {
            cluster: Mutex::new(Cluster::new(self.options)),
            changed: watch::Sender::new(()),
        };
        let cluster = FakeCluster { shared: Arc::new(shared), servers: Mutex::default() };
        for id in 1..=self.brokers {
            cluster.listen(id, free_port()?).await?;
        }
        Ok(cluster)
    }
}

impl FakeCluster {
    /// Starts one broker, with id 1 and the defaults of the [`builder`](Self::builder).
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts with the defaults: one broker, the old rule for first sequences, transactions by
    /// KIP-890, and no automatic topics.
    pub fn builder() -> FakeClusterBuilder {
        let options = Options {
            first_sequence: FirstSequence::default(),
            transaction_version: 2,
            auto_create_topics: false,
            default_partitions: 1,
            newest: HashMap::new(),
        };
        FakeClusterBuilder { brokers: 1, options }
    }

    /// Returns the addresses of all brokers, each `host:port`, separated by commas.
    pub fn bootstrap(&self) -> String {
        let cluster = self.shared.lock();
        let ports = cluster.brokers.values().map(|broker| broker.port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// Creates a topic with one replica a partition, led by the brokers in turn.
    ///
    /// # Errors
    /// The topic exists, or the name is illegal.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates a topic with these settings, like [`create_topic`](Self::create_topic).
    ///
    /// # Errors
    /// The topic exists, or the name is illegal.
    pub fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut cluster = self.shared.lock();
        cluster.create_topic(name, Some(partitions), None, settings, false).map_err(
            |(_, message)| {
                Error::new(ErrorKind::Setup, format!("cannot create topic {name}"))
                    .caused_by(message)
            },
        )
    }

    /// Changes a setting of a topic, such as `max.message.bytes`.
    pub fn set_topic_setting(&self, topic: &str, name: &str, value: &str) {
        if let Some(topic) = self.shared.lock().topics.get_mut(topic) {
            topic.settings.insert(name.into(), value.into());
        }
    }

    /// Deletes a topic with its records.
    pub fn delete_topic(&self, name: &str) {
        self.shared.lock().topics.remove(name);
    }

    /// Adds partitions to a topic, up to this number.
    pub fn add_partitions(&self, topic: &str, count: usize) {
        let mut cluster = self.shared.lock();
        let brokers: Vec<i32> = cluster.brokers.keys().copied().collect();
        if let Some(topic) = cluster.topics.get_mut(topic) {
            topic.grow(count, &brokers);
        }
    }

    /// Makes another broker the leader of a partition.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) {
        if let Some(partition) = self.shared.lock().partition(topic, partition) {
            partition.leader = broker;
            partition.leader_epoch += 1;
        }
    }

    /// Returns the id of the broker that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.shared.lock().partition(topic, partition).map(|partition| partition.leader)
    }

    /// Forgets the producers of all partitions, as brokers do `producer.id.expiration.ms` after the
    /// last batch.
    pub fn forget_producers(&self) {
        let mut cluster = self.shared.lock();
        let topics = cluster.topics.values_mut();
        topics.flat_map(|topic| &mut topic.partitions).for_each(|p| p.log.forget_producers());
    }

    /// Returns the number of requests of this kind that have arrived.
    pub fn requests(&self, api: Api) -> usize {
        self.shared.lock().requests.get(&api).copied().unwrap_or(0)
    }

    /// Stops a broker: its connections are closed, and nothing that they sent has an effect any
    /// more. It keeps its partitions and their records.
    pub async fn broker_down(&self, id: i32) {
        self.stop(id, false).await;
    }

    /// Stops a broker as [`broker_down`](Self::broker_down) does. The others notice nothing: their
    /// metadata names it, as a leader too, until [`broker_down`](Self::broker_down).
    pub async fn broker_killed(&self, id: i32) {
        self.stop(id, true).await;
    }

    async fn stop(&self, id: i32, is_listed: bool) {
        self.shared.lock().broker_down(id, is_listed);
        let server = self.servers().remove(&id);
        if let Some(server) = server {
            server.abort();
            // The end of an aborted task is an error.
            let _ = server.await;
        }
    }

    /// Starts a broker again on its port.
    ///
    /// # Errors
    /// The port was taken meanwhile, or there is no broker of this id.
    pub async fn broker_up(&self, id: i32) -> Result<()> {
        if self.shared.lock().is_up(id) {
            return Ok(());
        }
        let port = self.shared.lock().brokers.get(&id).map(|broker| broker.port);
        let port =
            port.ok_or_else(|| Error::new(ErrorKind::Setup, format!("there is no broker {id}")))?;
        self.listen(id, port).await
    }

    /// Stops a broker and starts it again.
    ///
    /// # Errors
    /// As [`broker_up`](Self::broker_up).
    pub async fn restart(&self, id: i32) -> Result<()> {
        self.broker_down(id).await;
        self.broker_up(id).await
    }

    async fn listen(&self, id: i32, port: u16) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
            Error::new(ErrorKind::Setup, format!("cannot listen on port {port}")).caused_by(error)
        })?;
        let number = self.shared.lock().broker_up(id, port);
        let run = Run { broker: id, number };
        self.servers().insert(id, serve(listener, run, Arc::clone(&self.shared)));
        Ok(())
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<i32, JoinHandle<()>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.servers().values().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for FakeCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeCluster").field("bootstrap", &self.bootstrap()).finish_non_exhaustive()
    }
}
