//! A client for questions: topics and their settings, offsets, records.
//!
//! It joins no group and commits nothing. Connections are made when they are needed and kept.
//! Errors that pass while leaders move are waited for, up to
//! [`Settings::request_timeout`](crate::Settings); all others are the caller's to try again.

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
    anyone::Anyone,
    connection::Connection,
    error::{Code, Error, Result, check},
    settings::Settings,
};

mod reader;
mod topics;

pub use self::{
    reader::{Fetched, FetchedRecord, Isolation},
    topics::{NewTopic, TopicSetting},
};

const METADATA_VERSION: i16 = 12;

/// Asks brokers; see the [module](self).
pub struct Client {
    settings: Arc<Settings>,
    known: Mutex<Known>,
}

/// Connections and addresses.
#[derive(Default)]
struct Known {
    any: Option<Connection>,
    addresses: HashMap<i32, (String, u16)>,
    links: HashMap<i32, Connection>,
    controller: Option<i32>,
    leaders: HashMap<(String, i32), i32>,
}

/// Brokers and topics of a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Cluster {
    /// Identifies the cluster.
    pub id: Option<String>,
    /// Addresses that the brokers advertise to this client.
    pub brokers: Vec<BrokerAddress>,
    /// The topics that were asked for and that this user may see, or why they can't be had.
    pub topics: BTreeMap<String, Result<Vec<PartitionPlaces>>>,
}

/// A broker, and where clients find it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerAddress {
    /// `node.id`.
    pub id: i32,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// The brokers that have a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionPlaces {
    /// Number of the partition.
    pub partition: i32,
    /// The broker that takes its records; none while one is elected.
    pub leader: Option<i32>,
    /// All of its replicas.
    pub replicas: Vec<i32>,
    /// Those that have all of it.
    pub in_sync: Vec<i32>,
}

impl Client {
    /// A client that connects with the first question.
    pub fn new(settings: Settings) -> Self {
        Client { settings: Arc::new(settings), known: Mutex::default() }
    }

    /// The brokers, and these topics; all topics where none is named. No topic is created by
    /// being asked for.
    ///
    /// # Errors
    /// No broker answers, or none lets us in.
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

    /// The partitions of a topic in their order; none where there is no such topic.
    ///
    /// # Errors
    /// No broker answers, or the topic can't be seen.
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

    async fn metadata(&self, topics: Option<&[&str]>) -> Result<MetadataResponse> {
        let topics = topics.map(|topics| {
            let named = |name: &&str| MetadataRequestTopic::default().with_name(topic_name(name));
            topics.iter().map(named).collect::<Vec<_>>()
        });
        let request =
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let metadata = self.ask_anyone(&request, METADATA_VERSION).await?;
        let mut known = self.known.lock().await;
        known.controller = Some(metadata.controller_id.0).filter(|id| *id >= 0);
        for broker in &metadata.brokers {
            let address = (broker.host.to_string(), broker.port as u16);
            known.addresses.insert(broker.node_id.0, address);
        }
        for topic in &metadata.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                let place = (name.to_string(), partition.partition_index);
                known.leaders.insert(place, partition.leader_id.0);
            }
        }
        Ok(metadata)
    }

    async fn ask_anyone<R: Request>(&self, request: &R, most: i16) -> Result<R::Response> {
        let anyone = {
            let known = self.known.lock().await;
            Anyone {
                settings: Arc::clone(&self.settings),
                open: known.any.clone().filter(is_usable),
                known: known.addresses.values().cloned().collect(),
            }
        };
        let (connection, answer) = anyone.ask(request, most).await?;
        self.known.lock().await.any = Some(connection);
        Ok(answer)
    }

    /// Asks the controller, which alone changes topics before KRaft; else any broker passes it on.
    async fn ask_controller<R: Request>(&self, request: &R, most: i16) -> Result<R::Response> {
        self.metadata(Some(&[])).await?;
        let controller = self.known.lock().await.controller;
        match controller {
            Some(controller) => self.broker(controller).await?.call(request, most).await,
            None => self.ask_anyone(request, most).await,
        }
    }

    /// Asks the leader of a partition, and another one where it moved. `code_of` finds the error
    /// in an answer.
    async fn ask_leader<R: Request>(
        &self,
        (topic, partition): (&str, i32),
        request: &R,
        most: i16,
        code_of: impl Fn(&R::Response) -> (i16, &'static str),
    ) -> Result<R::Response> {
        let deadline = Instant::now() + self.settings.request_timeout;
        let mut is_stale = false;
        loop {
            let answer = self.ask_once((topic, partition), request, most, is_stale).await;
            let failed = match answer {
                Ok(answer) => {
                    let (code, what) = code_of(&answer);
                    let what = || format!("{what} partition {partition} of topic {topic}");
                    match check(code, None, what) {
                        Ok(()) => return Ok(answer),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let passes = match &failed {
                Error::Broker { code, .. } => is_moving(*code),
                Error::Connection { .. } | Error::TimedOut { .. } | Error::HungUp { .. } => true,
                _ => false,
            };
            if !passes || Instant::now() + self.settings.backoff > deadline {
                return Err(failed);
            }
            is_stale = true;
            sleep(self.settings.backoff).await;
        }
    }

    async fn ask_once<R: Request>(
        &self,
        (topic, partition): (&str, i32),
        request: &R,
        most: i16,
        is_stale: bool,
    ) -> Result<R::Response> {
        let place = (topic.to_owned(), partition);
        let leader = self.known.lock().await.leaders.get(&place).copied();
        let leader = match leader {
            Some(leader) if !is_stale && leader >= 0 => leader,
            _ => {
                let metadata = self.metadata(Some(&[topic])).await?;
                let topics = metadata.topics.iter();
                let found = topics.map(|t| check(t.error_code, None, || format!("topic {topic}")));
                found.collect::<Result<()>>()?;
                let leader = self.known.lock().await.leaders.get(&place).copied();
                let leader = leader.filter(|leader| *leader >= 0);
                leader.ok_or_else(|| Error::Broker {
                    what: format!("partition {partition} of topic {topic}"),
                    code: Code::LeaderNotAvailable,
                    message: None,
                })?
            }
        };
        self.broker(leader).await?.call(request, most).await
    }

    async fn broker(&self, id: i32) -> Result<Connection> {
        let address = {
            let known = self.known.lock().await;
            if let Some(open) = known.links.get(&id).filter(|open| is_usable(open)) {
                return Ok(open.clone());
            }
            known.addresses.get(&id).cloned()
        };
        let (host, port) = address.ok_or_else(|| Error::Protocol {
            address: self.settings.bootstrap.join(",").into(),
            what: format!("no broker says that it is {id}"),
        })?;
        let connection = Connection::open(&self.settings, &host, port).await?;
        self.known.lock().await.links.insert(id, connection.clone());
        Ok(connection)
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

fn is_usable(connection: &Connection) -> bool {
    !connection.is_closed() && connection.login_due().is_none_or(|due| Instant::now() < due)
}

/// True for what passes when a leader is elected.
fn is_moving(code: Code) -> bool {
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
