//! Asks brokers about the cluster and its topics, and creates missing topics.

use std::{collections::BTreeMap, time::Duration};

use factlib_kafka::{
    Code,
    client::{Isolation, NewTopic},
};

use super::{KafkaSettings, NewTopics, broker_client::BrokerClient, errors::broker_error};
use crate::{ErrorKind, Result};

/// Limit for one question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for the question for a topic's settings, without whose answer the topic opens as well.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit for one check whether brokers that are away have come back; a stop may wait for it.
const RETURN_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two checks that failed at once.
const RETURN_CHECK_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a topic's limit for a batch that are not the records': its header, and that of one.
const BATCH_OVERHEAD: usize = 512;

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// A cluster, as its metadata has it.
pub(crate) struct Cluster {
    pub brokers: usize,
    /// The address that each broker advertises to clients, as host and port.
    pub addresses: Vec<(String, u16)>,
    /// Topics by name, each with the number of replicas of its least replicated partition.
    pub topics: BTreeMap<String, usize>,
    /// Numbers of partitions by topic.
    pub partitions: BTreeMap<String, usize>,
}

/// Settings of a topic; none if we may not know.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicSettings {
    pub topic: String,
    pub max_message_bytes: Option<usize>,
    pub min_insync_replicas: Option<usize>,
}

/// A topic that can be sent to.
pub(crate) struct Topic {
    /// It was missing.
    pub created: bool,
    /// Number of its partitions; none if it was just created.
    pub partitions: Option<usize>,
    /// Size of the largest batch of records that it takes; none if we may not know.
    pub batch_bytes: Option<usize>,
}

/// Answers questions about the cluster and makes topics ready. It connects with the first
/// question, and keeps its connections.
pub(crate) struct TopicAdmin {
    client: BrokerClient,
    new_topics: NewTopics,
}

impl TopicAdmin {
    /// # Errors
    /// [`ErrorKind::Config`] for a setting that the client does not take.
    pub fn new(settings: &KafkaSettings) -> Result<Self> {
        Ok(TopicAdmin { client: BrokerClient::new(settings)?, new_topics: settings.topics.clone() })
    }

    /// The bootstrap brokers, separated by commas.
    pub fn brokers(&self) -> &str {
        self.client.brokers()
    }

    /// Checks that a broker answers and lets us in.
    pub async fn check(&self, limit: Duration) -> Result<()> {
        let asking = self.client.client().cluster(Some(&[]));
        self.client.within(limit, "cannot list the brokers", asking).await.map(|_| ())
    }

    /// Waits until brokers that are away answer again. Returns false if they answer at once, so
    /// that the failure has another cause.
    pub async fn are_back(&self) -> bool {
        let mut were_away = false;
        while self.check(RETURN_CHECK_TIMEOUT).await.is_err() {
            were_away = true;
            tokio::time::sleep(RETURN_CHECK_PAUSE).await;
        }
        were_away
    }

    /// Asks for the whole cluster; changes nothing.
    pub async fn cluster(&self, limit: Duration) -> Result<Cluster> {
        let asking = self.client.client().cluster(None);
        let cluster = self.client.within(limit, "cannot list the topics", asking).await?;
        let mut counts = BTreeMap::new();
        let topics = cluster.topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.unwrap_or_default();
            counts.insert(name.clone(), partitions.len());
            let replicas = partitions.iter().map(|partition| partition.replicas.len());
            (name, replicas.min().unwrap_or_default())
        });
        let topics = topics.collect();
        Ok(Cluster {
            brokers: cluster.brokers.len(),
            topics,
            partitions: counts,
            addresses: cluster.brokers.into_iter().map(|at| (at.host, at.port)).collect(),
        })
    }

    /// Creates the topic if it is missing and that is wanted, and asks for its limit.
    ///
    /// # Errors
    /// [`ErrorKind::TopicRefused`] and
    /// [`ErrorKind::TopicUnavailable`] for this topic alone.
    pub async fn prepare(&self, topic: &str) -> Result<Topic> {
        let partitions = self.partitions(topic).await?;
        let created = match (partitions, self.new_topics.create) {
            (Some(_), _) => false,
            (None, true) => self.create(topic, false).await?,
            (None, false) => {
                let what = format!("topic {topic} does not exist");
                return Err(broker_error(what, Code::UnknownTopicOrPartition, None));
            }
        };
        // Without the right to ask, or an answer in time, the usual batch has to do.
        let limit = self.settings_of(topic).await.ok().and_then(|found| found.max_message_bytes);
        let batch_bytes = limit.map(|bytes| bytes.saturating_sub(BATCH_OVERHEAD).max(1));
        // A topic whose leaders are not known yet has partitions that are not known either.
        let partitions = partitions.filter(|count| *count > 0);
        Ok(Topic { created, partitions, batch_bytes })
    }

    /// Returns the number of a topic's partitions; none if there is no such topic.
    pub async fn partitions(&self, topic: &str) -> Result<Option<usize>> {
        let asking = async {
            match self.client.client().partitions(topic).await {
                // The topic is there, its leader may not be; sending waits for it.
                Err(error) if error.code() == Some(Code::LeaderNotAvailable) => {
                    Ok(Some(Vec::new()))
                }
                answer => answer,
            }
        };
        let what = format!("cannot look up topic {topic}");
        let found = self.client.within(REQUEST_TIMEOUT, what, asking).await?;
        Ok(found.map(|partitions| partitions.len()))
    }

    /// Returns the next offset of each of a topic's first partitions.
    pub async fn end_offsets(&self, topic: &str, partitions: usize) -> Result<Vec<i64>> {
        let mut ends = Vec::with_capacity(partitions);
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let client = self.client.client();
            let asking = client.offsets(topic, partition, Isolation::ReadUncommitted);
            let what = format!("cannot read the offsets of topic {topic}");
            ends.push(self.client.within(REQUEST_TIMEOUT, what, asking).await?.end);
        }
        Ok(ends)
    }

    /// Asks whether the brokers would create the topic, without creating it.
    pub async fn may_create(&self, topic: &str) -> Result<()> {
        self.create(topic, true).await.map(|_| ())
    }

    /// Returns the settings of those topics whose settings we may see.
    pub async fn settings(&self, topics: &[&str]) -> Result<Vec<TopicSettings>> {
        let mut all = Vec::new();
        for topic in topics {
            match self.settings_of(topic).await {
                Ok(settings) => all.push(settings),
                Err(error) if error.kind() == ErrorKind::KafkaUnavailable => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(all)
    }

    async fn settings_of(&self, topic: &str) -> Result<TopicSettings> {
        let names = [MAX_MESSAGE_BYTES, MIN_INSYNC_REPLICAS];
        let asking = self.client.client().topic_settings(topic, &names);
        let what = "cannot ask for the settings of topics";
        let found = self.client.within(SETTINGS_TIMEOUT, what, asking).await?;
        let number = |name| found.get(name)?.value.as_ref()?.parse().ok();
        Ok(TopicSettings {
            topic: topic.to_owned(),
            max_message_bytes: number(MAX_MESSAGE_BYTES),
            min_insync_replicas: number(MIN_INSYNC_REPLICAS),
        })
    }

    /// Creates a topic, or only asks whether the brokers would. Returns false if it exists.
    async fn create(&self, topic: &str, only_ask: bool) -> Result<bool> {
        let settings = &self.new_topics;
        let replicas = settings.replication_factor;
        let new = NewTopic {
            name: topic.to_owned(),
            partitions: settings.partitions,
            replication_factor: replicas.map(|count| i16::try_from(count).unwrap_or(i16::MAX)),
            settings: settings.config.clone().into_iter().collect(),
        };
        let what = || format!("cannot create topic {topic}");
        let asking = async {
            match self.client.client().create_topic(&new, only_ask).await {
                Ok(()) => Ok(Ok(true)),
                Err(error) => match error.code() {
                    Some(Code::TopicAlreadyExists) => Ok(Ok(false)),
                    // Brokers before 2.0 ask for this right on the cluster.
                    Some(Code::ClusterAuthorizationFailed) => {
                        Ok(Err(broker_error(what(), Code::TopicAuthorizationFailed, None)))
                    }
                    _ => Err(error),
                },
            }
        };
        self.client.within(REQUEST_TIMEOUT, what(), asking).await?
    }

    /// Returns the value of one setting of a topic.
    pub async fn setting(&self, topic: &str, name: &str) -> Result<Option<String>> {
        let names = [name];
        let asking = self.client.client().topic_settings(topic, &names);
        let what = format!("cannot ask for the settings of topic {topic}");
        let mut found = self.client.within(REQUEST_TIMEOUT, what, asking).await?;
        Ok(found.remove(name).and_then(|setting| setting.value))
    }

    /// Changes one setting of a topic; its others stay.
    pub async fn alter(&self, topic: &str, name: &str, value: &str) -> Result<()> {
        let asking = self.client.client().set_topic_setting(topic, name, value);
        let what = format!("cannot change {name} of topic {topic}");
        self.client.within(REQUEST_TIMEOUT, what, asking).await
    }
}
