//! Asks brokers about the cluster and its topics, and creates missing topics.
//!
//! Metadata is asked for through the producer, whose thread receives librdkafka's errors; an admin
//! client would only report that its request timed out. The admin client is for what a producer
//! can't do: create a topic, and read or alter its settings.

use std::{
    collections::BTreeMap,
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, OwnedResourceSpecifier,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    error::RDKafkaErrorCode as Code,
    metadata::Metadata,
};

use super::{
    KafkaSettings, certificate,
    client::client_config,
    errors::{code_error, is_untrusted, kafka_error},
    producer::KafkaProducer,
    reports::Trouble,
};
use crate::{Error, ErrorKind, Result};

/// Of one question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the other brokers to answer after one has refused us.
const OTHERS_TIME: Duration = Duration::from_secs(1);

/// Of the question for a topic's limit, without whose answer the topic opens as well.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit for one look whether brokers that are away have come back; a stop may wait for it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two looks that failed at once.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Waits until brokers that are away answer again; false if they answer at once, so that the
/// failure has another cause. Asks for `topic` alone, to keep the answer small.
pub(crate) async fn are_back(producer: &KafkaProducer, topic: &str) -> bool {
    let mut away = false;
    while metadata(producer, Some(topic.to_owned()), LOOK_TIMEOUT).await.is_err() {
        away = true;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    away
}

/// Answers whether the brokers are there and let us in.
pub(crate) async fn check(producer: &KafkaProducer, timeout: Duration) -> Result<()> {
    metadata(producer, None, timeout).await.map(|_| ())
}

/// A cluster, as its metadata has it.
pub(crate) struct Cluster {
    pub brokers: usize,
    /// The address that each broker advertises to clients, as host and port.
    pub addresses: Vec<(String, u16)>,
    /// Topics by name, and of how many replicas the least replicated partition of each is.
    pub topics: BTreeMap<String, usize>,
}

/// Asks for the whole cluster; changes nothing.
pub(crate) async fn cluster(producer: &KafkaProducer, timeout: Duration) -> Result<Cluster> {
    let metadata = metadata(producer, None, timeout).await?;
    let topics = metadata.topics().iter().map(|topic| {
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len());
        (topic.name().to_owned(), replicas.min().unwrap_or_default())
    });
    let addresses = metadata
        .brokers()
        .iter()
        .filter_map(|broker| Some((broker.host().to_owned(), u16::try_from(broker.port()).ok()?)));
    Ok(Cluster {
        brokers: metadata.brokers().len(),
        addresses: addresses.collect(),
        topics: topics.collect(),
    })
}

/// Settings of a topic; none if we may not know.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicSettings {
    pub topic: String,
    pub max_message_bytes: Option<usize>,
    pub min_insync_replicas: Option<usize>,
}

/// Bytes of a topic's limit for a batch that are not the records': its header, and that of one.
const BATCH_OVERHEAD: usize = 512;

/// A topic that can be sent to.
pub(crate) struct Topic {
    /// It was missing.
    pub created: bool,
    /// Number of its partitions; none if it was just created.
    pub partitions: Option<usize>,
    /// Size of the largest batch of records that it takes; none if we may not know.
    pub batch_bytes: Option<usize>,
}

/// Makes topics ready: one a pipeline, whose client is made for the first topic that
/// needs one and kept for the others.
pub(crate) struct TopicAdmin {
    settings: KafkaSettings,
    client: Mutex<Option<Arc<Client>>>,
}

type Client = AdminClient<DefaultClientContext>;

impl TopicAdmin {
    pub fn new(settings: KafkaSettings) -> Self {
        TopicAdmin { settings, client: Mutex::new(None) }
    }

    /// Creates the topic if it is missing and that is wanted, and asks for its limit.
    ///
    /// # Errors
    /// [`ErrorKind::TopicRefused`] and [`ErrorKind::TopicUnavailable`] for this topic alone.
    pub async fn prepare(&self, producer: &KafkaProducer, topic: &str) -> Result<Topic> {
        let partitions = partitions(producer, topic).await?;
        let created = match (partitions, self.settings.topics.create) {
            (Some(_), _) => false,
            (None, true) => self.create(topic, false).await?,
            (None, false) => {
                let what = format!("topic {topic} does not exist");
                return Err(code_error(what, Code::UnknownTopicOrPartition));
            }
        };
        // An operator who sets the size of a batch has said what the topics take.
        let limit = match self.settings.properties.contains_key("batch.size") {
            true => None,
            false => self.max_message_bytes(topic).await?,
        };
        let batch_bytes = limit.map(|bytes| bytes.saturating_sub(BATCH_OVERHEAD).max(1));
        Ok(Topic { created, partitions, batch_bytes })
    }

    /// Asks whether the brokers would create the topic, without creating it.
    pub async fn may_create(&self, topic: &str) -> Result<()> {
        self.create(topic, true).await.map(|_| ())
    }

    /// Settings of those topics whose settings we may see.
    pub async fn settings(&self, topics: &[&str]) -> Result<Vec<TopicSettings>> {
        let options = AdminOptions::new().request_timeout(Some(LIMIT_TIMEOUT));
        let resources: Vec<_> = topics.iter().copied().map(ResourceSpecifier::Topic).collect();
        let client = self.client()?;
        let answers = client.describe_configs(&resources, &options).await;
        let what = "cannot ask for the settings of topics";
        let answers = answers.map_err(|error| kafka_error(what, error))?;
        let settings = answers.into_iter().filter_map(|answer| {
            let answer = answer.ok()?;
            let number = |name| answer.get(name)?.value.as_ref()?.parse().ok();
            let (max, min) = (number("max.message.bytes"), number("min.insync.replicas"));
            let OwnedResourceSpecifier::Topic(topic) = answer.specifier else { return None };
            Some(TopicSettings { topic, max_message_bytes: max, min_insync_replicas: min })
        });
        Ok(settings.collect())
    }

    async fn create(&self, topic: &str, only_ask: bool) -> Result<bool> {
        let what = || format!("cannot create topic {topic}");
        let settings = &self.settings.topics;
        // -1 leaves it to the broker.
        let replication = TopicReplication::Fixed(settings.replication_factor.unwrap_or(-1));
        let mut new = NewTopic::new(topic, settings.partitions.unwrap_or(-1), replication);
        for (key, value) in &settings.config {
            new = new.set(key, value);
        }
        let options =
            AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).validate_only(only_ask);
        let client = self.client()?;
        let results = client.create_topics([&new], &options).await;
        let results = results.map_err(|error| self.failed(kafka_error(what(), error)))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            // Brokers before 2.0 ask for this right on the cluster.
            Some(Err((_, Code::ClusterAuthorizationFailed))) => {
                Err(self.failed(code_error(what(), Code::TopicAuthorizationFailed)))
            }
            Some(Err((_, code))) => Err(self.failed(code_error(what(), code))),
            None => Err(Error::new(ErrorKind::KafkaUnavailable, what())
                .caused_by("the broker gave no answer for it")),
        }
    }

    /// The value of one setting of a topic.
    pub async fn setting(&self, topic: &str, name: &str) -> Result<Option<String>> {
        let settings = self.described(topic).await?;
        Ok(settings.into_iter().find(|(known, _, _)| known == name).and_then(|(_, value, _)| value))
    }

    /// Changes one setting of a topic. The request replaces all of them, so that those that the
    /// topic has of its own are named again.
    pub async fn alter(&self, topic: &str, name: &str, value: &str) -> Result<()> {
        let settings = self.described(topic).await?;
        let own = settings.iter().filter(|(known, _, own)| *own && known != name);
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        for (name, value, _) in own {
            if let Some(value) = value {
                change = change.set(name, value);
            }
        }
        let what = || format!("cannot change {name} of topic {topic}");
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let answers = self.client()?.alter_configs([&change], &options).await;
        match answers.map_err(|error| kafka_error(what(), error))?.into_iter().next() {
            Some(Err((_, code))) => Err(code_error(what(), code)),
            _ => Ok(()),
        }
    }

    /// Name and value of each setting of a topic, and whether it is the topic's own.
    async fn described(&self, topic: &str) -> Result<Vec<(String, Option<String>, bool)>> {
        let what = || format!("cannot ask for the settings of topic {topic}");
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let asked = [ResourceSpecifier::Topic(topic)];
        let answers = self.client()?.describe_configs(&asked, &options).await;
        match answers.map_err(|error| kafka_error(what(), error))?.into_iter().next() {
            Some(Ok(resource)) => Ok(resource
                .entries
                .into_iter()
                .map(|entry| (entry.name, entry.value, entry.source == ConfigSource::DynamicTopic))
                .collect()),
            Some(Err(code)) => Err(code_error(what(), code)),
            None => Err(Error::new(ErrorKind::KafkaUnavailable, what())
                .caused_by("the broker gave no answer for it")),
        }
    }

    async fn max_message_bytes(&self, topic: &str) -> Result<Option<usize>> {
        // Without the right to ask, or an answer in time, the usual batch has to do.
        let answer = match self.settings(&[topic]).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::Config => return Err(error),
            Err(error) => {
                self.failed(error);
                return Ok(None);
            }
        };
        Ok(answer.first().and_then(|settings| settings.max_message_bytes))
    }

    fn client(&self) -> Result<Arc<Client>> {
        let mut slot = self.lock();
        if let Some(client) = &*slot {
            return Ok(Arc::clone(client));
        }
        let what = "cannot create the Kafka client for topics";
        let made = client_config(&self.settings).create();
        let client: Client = made.map_err(|error| kafka_error(what, error))?;
        let client = Arc::new(client);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Notes an error: the next question goes through a new client.
    fn failed(&self, error: Error) -> Error {
        let old = self.lock().take();
        // Its end waits for its thread.
        tokio::task::spawn_blocking(move || drop(old));
        error
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        // Nothing panics while it is held.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of the topic's partitions; none if there is no such topic.
async fn partitions(producer: &KafkaProducer, topic: &str) -> Result<Option<usize>> {
    let metadata = metadata(producer, Some(topic.to_owned()), REQUEST_TIMEOUT).await?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    match found.error().map(Code::from) {
        // The topic is there, its leader may not be; sending waits for it.
        None | Some(Code::LeaderNotAvailable) => Ok(Some(found.partitions().len())),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
        Some(code) => Err(code_error(format!("cannot look up topic {topic}"), code)),
    }
}

async fn metadata(
    producer: &KafkaProducer,
    topic: Option<String>,
    timeout: Duration,
) -> Result<Metadata> {
    let asked = producer.clone();
    let of_all = topic.is_none();
    let asking = tokio::task::spawn_blocking(move || {
        asked.client().fetch_metadata(topic.as_deref(), timeout)
    });
    let what = || format!("cannot reach Kafka at {}", producer.brokers());
    let reports = producer.client().context();
    let refused = async {
        // At a start nothing is gained by waiting; later, what refuses may be about to end.
        let trouble = if of_all { reports.refusal().await } else { future::pending().await };
        tokio::time::sleep(OTHERS_TIME).await;
        trouble
    };
    let answer = tokio::select! {
        biased;
        answer = asking => answer,
        trouble = refused => return Err(explained(producer, trouble, what()).await),
    };
    match answer {
        Ok(Ok(metadata)) => Ok(metadata),
        // The error that made the request time out says more than the time-out.
        Ok(Err(error)) => match reports.trouble() {
            Some(trouble) => Err(explained(producer, trouble, what()).await),
            None => Err(kafka_error(what(), error)),
        },
        Err(error) => Err(Error::new(ErrorKind::KafkaUnavailable, what()).caused_by(error)),
    }
}

/// The error `what`, which this trouble led to; of a certificate, what is wrong with it.
async fn explained(producer: &KafkaProducer, trouble: Trouble, what: String) -> Error {
    if is_untrusted(trouble.reason())
        && let Some(why) = certificate::looked_at(producer.settings(), trouble.reason()).await
    {
        return why;
    }
    trouble.into_error(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaConfig;

    #[tokio::test]
    async fn one_client_serves_all_topics_until_it_fails() {
        let admin = TopicAdmin::new(KafkaConfig::default().settings());
        let first = admin.client().expect("a client");
        assert!(Arc::ptr_eq(&first, &admin.client().expect("a client")));
        admin.failed(Error::new(ErrorKind::KafkaUnavailable, "no answer"));
        assert!(!Arc::ptr_eq(&first, &admin.client().expect("a client")));
    }
}
