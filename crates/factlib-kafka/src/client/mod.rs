//! Administers topics, describes groups, and reads offsets and records without a consumer group.
//!
//! The client joins no group (see [`group`](crate::group)) and commits no offsets. It takes a
//! connection of its settings' [pool](crate::ConnectionPool) for each request. It retries errors of
//! a moving leader for up to
//! [`Settings::request_timeout`](crate::Settings); the caller has to retry all others.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use kafka_protocol::{
    messages::{
        MetadataRequest, MetadataResponse, TopicName, metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponsePartition,
    },
    protocol::{Request, StrBytes},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    broker_pool::BrokerPool,
    connection_pool::Lease,
    error::{Code, Error, Result, check},
    settings::Settings,
};

mod groups;
mod reader;
mod topics;

pub use self::{
    groups::{GroupDescription, GroupMemberDescription},
    reader::{Fetched, FetchedRecord, Isolation, LogEnd, TransactionEnd},
    topics::{NewTopic, TopicSetting},
};

const METADATA_VERSION: i16 = 12;

/// Sends requests to brokers; see the [module](self).
pub struct Client {
    settings: Arc<Settings>,
    cache: Mutex<Cache>,
}

/// Cached addresses and leaders.
#[derive(Default)]
struct Cache {
    /// The broker that was the last to answer a request that any of them can answer.
    any_broker: Option<(String, u16)>,
    /// Number of failures; each makes another broker be asked first.
    failures: usize,
    addresses: HashMap<i32, (String, u16)>,
    controller: Option<i32>,
    leaders: HashMap<(String, i32), i32>,
}

/// Brokers and topics of a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cluster {
    /// Id of the cluster.
    pub id: Option<String>,
    /// Brokers, with the addresses that they advertise to this client.
    pub brokers: Vec<BrokerAddress>,
    /// Requested topics that this user may see, each with its partitions or an error.
    pub topics: BTreeMap<String, Result<Vec<PartitionPlaces>>>,
}

/// A broker and its advertised address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerAddress {
    /// `node.id`.
    pub id: i32,
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Leader and replicas of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionPlaces {
    /// Number of the partition.
    pub partition: i32,
    /// Broker that leads the partition; none during an election.
    pub leader: Option<i32>,
    /// Brokers with a replica.
    pub replicas: Vec<i32>,
    /// Brokers with an in-sync replica.
    pub in_sync: Vec<i32>,
}

impl Client {
    /// Creates a client, which connects with the first request.
    pub fn new(settings: Settings) -> Self {
        Client { settings: Arc::new(settings), cache: Mutex::default() }
    }

    /// Returns the brokers and the given topics, or all topics for `None`. Never creates a topic.
    ///
    /// # Errors
    /// Returns an error if no broker responds, or none accepts the login.
    pub async fn cluster(&self, topics: Option<&[&str]>) -> Result<Cluster> {
        let metadata = self.metadata(topics).await?;
        let brokers = metadata.brokers.iter().map(|broker| BrokerAddress {
            id: broker.node_id.0,
            host: broker.host.to_string(),
            port: broker.port as u16,
        });
        let topics = metadata.topics.iter().filter_map(|topic| {
            let name = topic.name.as_ref()?.to_string();
            let found = check(topic.error_code, None, || format!("topic {name}"));
            let places = || topic.partitions.iter().map(PartitionPlaces::of).collect();
            Some((name, found.map(|()| places())))
        });
        Ok(Cluster {
            id: metadata.cluster_id.as_ref().map(|id| id.to_string()),
            brokers: brokers.collect(),
            topics: topics.collect(),
        })
    }

    /// Returns the partitions of a topic in order; none if there is no such topic.
    ///
    /// # Errors
    /// Returns an error if no broker responds, or the user may not see the topic.
    pub async fn partitions(&self, topic: &str) -> Result<Option<Vec<PartitionPlaces>>> {
        let mut cluster = self.cluster(Some(&[topic])).await?;
        match cluster.topics.remove(topic) {
            Some(Ok(mut partitions)) => {
                partitions.sort_by_key(|places| places.partition);
                Ok(Some(partitions))
            }
            Some(Err(error)) if error.code() == Some(Code::UnknownTopicOrPartition) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// Returns the identifier of a topic, which changes when it is deleted and created again; 0 from
    /// brokers before 2.8; none if there is no such topic.
    ///
    /// # Errors
    /// As [`partitions`](Self::partitions).
    pub async fn topic_id(&self, topic: &str) -> Result<Option<u128>> {
        let metadata = self.metadata(Some(&[topic])).await?;
        let Some(found) = metadata.topics.into_iter().next() else { return Ok(None) };
        match check(found.error_code, None, || format!("topic {topic}")) {
            Ok(()) => Ok(Some(found.topic_id.as_u128())),
            Err(error) if error.code() == Some(Code::UnknownTopicOrPartition) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn metadata(&self, topics: Option<&[&str]>) -> Result<MetadataResponse> {
        let topics = topics.map(|topics| {
            let named = |name: &&str| MetadataRequestTopic::default().with_name(topic_name(name));
            topics.iter().map(named).collect::<Vec<_>>()
        });
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let metadata = self.request_any_broker(&request, METADATA_VERSION).await?;
        let mut cache = self.cache.lock().await;
        cache.controller = Some(metadata.controller_id.0).filter(|id| *id >= 0);
        for broker in &metadata.brokers {
            let address = (broker.host.to_string(), broker.port as u16);
            cache.addresses.insert(broker.node_id.0, address);
        }
        for topic in &metadata.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                let place = (name.to_string(), partition.partition_index);
                cache.leaders.insert(place, partition.leader_id.0);
            }
        }
        Ok(metadata)
    }

    async fn request_any_broker<R: Request>(
        &self,
        request: &R,
        max_version: i16,
    ) -> Result<R::Response> {
        let brokers = {
            let cache = self.cache.lock().await;
            BrokerPool {
                settings: Arc::clone(&self.settings),
                preferred: cache.any_broker.clone(),
                discovered: cache.addresses.values().cloned().collect(),
                skipped: cache.failures,
            }
        };
        match brokers.request(request, max_version).await {
            Ok((connection, response)) => {
                let broker = connection.host_and_port();
                self.cache.lock().await.any_broker = Some(broker);
                Ok(response)
            }
            Err(error) => {
                self.give_up_broker().await;
                Err(error)
            }
        }
    }

    /// Asks another broker first from now on.
    async fn give_up_broker(&self) {
        let mut cache = self.cache.lock().await;
        cache.any_broker = None;
        cache.failures = cache.failures.wrapping_add(1);
    }

    /// Sends a request to the controller, which alone can change topics without KRaft. If there is
    /// none, any broker forwards the request.
    async fn request_controller<R: Request>(
        &self,
        request: &R,
        max_version: i16,
    ) -> Result<R::Response> {
        self.metadata(Some(&[])).await?;
        let controller = self.cache.lock().await.controller;
        match controller {
            Some(controller) => self.broker(controller).await?.call(request, max_version).await,
            None => self.request_any_broker(request, max_version).await,
        }
    }

    /// Sends a request to the leader of a partition, and to the new leader if it moved. `code_of`
    /// extracts the error code from a response.
    async fn request_leader<R: Request>(
        &self,
        (topic, partition): (&str, i32),
        request: &R,
        max_version: i16,
        code_of: impl Fn(&R::Response) -> (i16, &'static str),
    ) -> Result<R::Response> {
        let deadline = Instant::now() + self.settings.request_timeout;
        let mut is_stale = false;
        loop {
            let response =
                self.request_leader_once((topic, partition), request, max_version, is_stale).await;
            let failed = match response {
                Ok(response) => {
                    let (code, what) = code_of(&response);
                    let what = || format!("{what} partition {partition} of topic {topic}");
                    match check(code, None, what) {
                        Ok(()) => return Ok(response),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let passes = match &failed {
                Error::Broker { code, .. } => is_leader_change(*code),
                Error::Connection { .. } | Error::TimedOut { .. } | Error::HungUp { .. } => true,
                _ => false,
            };
            if !passes || Instant::now() + self.settings.backoff > deadline {
                return Err(failed);
            }
            is_stale = true;
            // It may know the leader no better the next time.
            self.give_up_broker().await;
            sleep(self.settings.backoff).await;
        }
    }

    async fn request_leader_once<R: Request>(
        &self,
        (topic, partition): (&str, i32),
        request: &R,
        max_version: i16,
        is_stale: bool,
    ) -> Result<R::Response> {
        let place = (topic.to_owned(), partition);
        let leader = self.cache.lock().await.leaders.get(&place).copied();
        let leader = match leader {
            Some(leader) if !is_stale && leader >= 0 => leader,
            _ => {
                let metadata = self.metadata(Some(&[topic])).await?;
                let topics = metadata.topics.iter();
                let found = topics.map(|t| check(t.error_code, None, || format!("topic {topic}")));
                found.collect::<Result<()>>()?;
                let leader = self.cache.lock().await.leaders.get(&place).copied();
                let leader = leader.filter(|leader| *leader >= 0);
                leader.ok_or_else(|| Error::Broker {
                    what: format!("partition {partition} of topic {topic}"),
                    code: Code::LeaderNotAvailable,
                    message: None,
                })?
            }
        };
        self.broker(leader).await?.call(request, max_version).await
    }

    async fn broker(&self, id: i32) -> Result<Lease> {
        let address = self.cache.lock().await.addresses.get(&id).cloned();
        let (host, port) = address.ok_or_else(|| Error::Protocol {
            address: self.settings.bootstrap.join(",").into(),
            what: format!("the metadata has no broker with id {id}"),
        })?;
        Lease::take(&self.settings, &host, port).await
    }
}

impl PartitionPlaces {
    fn of(partition: &MetadataResponsePartition) -> Self {
        PartitionPlaces {
            partition: partition.partition_index,
            leader: Some(partition.leader_id.0).filter(|leader| *leader >= 0),
            replicas: partition.replica_nodes.iter().map(|broker| broker.0).collect(),
            in_sync: partition.isr_nodes.iter().map(|broker| broker.0).collect(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Returns true for an error that ends once a leader is elected.
fn is_leader_change(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderOrFollower
            | Code::LeaderNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::KafkaStorageError
            | Code::ReplicaNotAvailable
    )
}

fn topic_name(name: &str) -> Option<TopicName> {
    Some(TopicName(text(name)))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
