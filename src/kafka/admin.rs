//! Questions to the brokers, and topics that are missing.
//!
//! Questions go through the producer, whose thread hears of what goes wrong; an
//! admin client would be told only that its request timed out. It is for what a
//! producer can't: to create a topic, and to ask for its limit.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode as Code,
    metadata::Metadata,
};

use super::{
    client::client_config,
    errors::{code_error, kafka_error},
    producer::KafkaProducer,
};
use crate::{Error, ErrorKind, Result, config::KafkaConfig};

/// Of one question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Of the question for a topic's limit, without whose answer the topic opens as well.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers whether the brokers are there and let us in.
pub(crate) async fn check(producer: &KafkaProducer, timeout: Duration) -> Result<()> {
    metadata(producer, None, timeout).await.map(|_| ())
}

/// A topic that can be sent to.
pub(crate) struct Topic {
    /// It was missing.
    pub created: bool,
    /// The largest batch that it takes; none where we may not know.
    pub max_message_bytes: Option<usize>,
}

/// Makes topics ready: one a pipeline, whose client is made for the first topic that
/// needs one and kept for the others.
pub(crate) struct TopicAdmin {
    config: KafkaConfig,
    client: Mutex<Option<Arc<Client>>>,
}

type Client = AdminClient<DefaultClientContext>;

impl TopicAdmin {
    pub fn new(config: KafkaConfig) -> Self {
        TopicAdmin { config, client: Mutex::new(None) }
    }

    /// Creates the topic if it is missing and that is wanted, and asks for its limit.
    pub async fn prepare(&self, producer: &KafkaProducer, topic: &str) -> Result<Topic> {
        let created = match (exists(producer, topic).await?, self.config.topics.create) {
            (true, _) => false,
            (false, true) => self.create(topic).await?,
            (false, false) => {
                let what = format!("topic {topic} does not exist");
                return Err(code_error(what, Code::UnknownTopicOrPartition));
            }
        };
        // An operator who sets the size of a batch has said what the topics take.
        let max_message_bytes = match self.config.properties.contains_key("batch.size") {
            true => None,
            false => self.max_message_bytes(topic).await?,
        };
        Ok(Topic { created, max_message_bytes })
    }

    async fn create(&self, topic: &str) -> Result<bool> {
        let what = || format!("cannot create topic {topic}");
        let settings = &self.config.topics;
        // -1 leaves it to the broker.
        let replication = TopicReplication::Fixed(settings.replication_factor.unwrap_or(-1));
        let mut new = NewTopic::new(topic, settings.partitions.unwrap_or(-1), replication);
        for (key, value) in &settings.config {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let client = self.client()?;
        let results = client.create_topics([&new], &options).await;
        let results = results.map_err(|error| self.failed(kafka_error(what(), error)))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(self.failed(code_error(what(), code))),
            None => Err(Error::new(ErrorKind::KafkaUnavailable, what())
                .caused_by("the broker gave no answer for it")),
        }
    }

    async fn max_message_bytes(&self, topic: &str) -> Result<Option<usize>> {
        let options = AdminOptions::new().request_timeout(Some(LIMIT_TIMEOUT));
        let resource = ResourceSpecifier::Topic(topic);
        let client = self.client()?;
        // Without the right to ask, or an answer in time, the usual batch has to do.
        let answer = match client.describe_configs([&resource], &options).await {
            Ok(answer) => answer,
            Err(error) => {
                self.failed(kafka_error("no answer", error));
                return Ok(None);
            }
        };
        let config = answer.into_iter().next().and_then(Result::ok);
        let limit = config.as_ref().and_then(|config| config.get("max.message.bytes"));
        Ok(limit.and_then(|limit| limit.value.as_ref()?.parse().ok()))
    }

    fn client(&self) -> Result<Arc<Client>> {
        let mut slot = self.lock();
        if let Some(client) = &*slot {
            return Ok(Arc::clone(client));
        }
        let what = "cannot create the Kafka client for topics";
        let made = client_config(&self.config).create();
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

async fn exists(producer: &KafkaProducer, topic: &str) -> Result<bool> {
    let metadata = metadata(producer, Some(topic.to_owned()), REQUEST_TIMEOUT).await?;
    let error = metadata.topics().iter().find_map(|topic| topic.error());
    match error.map(Code::from) {
        None => Ok(!metadata.topics().is_empty()),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(false),
        // The topic is there, its leader is not; sending waits for it.
        Some(Code::LeaderNotAvailable) => Ok(true),
        Some(code) => Err(code_error(format!("cannot look up topic {topic}"), code)),
    }
}

async fn metadata(
    producer: &KafkaProducer,
    topic: Option<String>,
    timeout: Duration,
) -> Result<Metadata> {
    let asked = producer.clone();
    let asking = tokio::task::spawn_blocking(move || {
        asked.client().fetch_metadata(topic.as_deref(), timeout)
    });
    let what = || format!("cannot reach Kafka at {}", producer.brokers());
    match asking.await {
        Ok(Ok(metadata)) => Ok(metadata),
        // The error that made the request time out says more than the time-out.
        Ok(Err(error)) => match producer.client().context().trouble() {
            Some(trouble) => Err(trouble.led_to(what())),
            None => Err(kafka_error(what(), error)),
        },
        Err(error) => Err(Error::new(ErrorKind::KafkaUnavailable, what()).caused_by(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_client_serves_all_topics_until_it_fails() {
        let admin = TopicAdmin::new(KafkaConfig::default());
        let first = admin.client().expect("a client");
        assert!(Arc::ptr_eq(&first, &admin.client().expect("a client")));
        admin.failed(Error::new(ErrorKind::KafkaUnavailable, "no answer"));
        assert!(!Arc::ptr_eq(&first, &admin.client().expect("a client")));
    }
}
