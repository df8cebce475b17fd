//! Questions to the brokers, and topics that are missing.
//!
//! Questions go through the producer, whose thread hears of what goes wrong; an
//! admin client would be told only that its request timed out. One is made for
//! the creation of a topic, which is rare.

use std::time::Duration;

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

/// Creates the topic if it is missing and that is wanted, and asks for its limit.
pub(crate) async fn prepare_topic(
    config: &KafkaConfig,
    producer: &KafkaProducer,
    topic: &str,
) -> Result<Topic> {
    let exists = exists(producer, topic).await?;
    let what = || format!("cannot create topic {topic}");
    let admin: AdminClient<DefaultClientContext> =
        client_config(config).create().map_err(|error| kafka_error(what(), error))?;
    let created = match (exists, config.topics.create) {
        (true, _) => Ok(false),
        (false, true) => create(&admin, config, topic).await,
        (false, false) => {
            Err(code_error(format!("topic {topic} does not exist"), Code::UnknownTopicOrPartition))
        }
    };
    let max_message_bytes = match created {
        // An operator who sets the size of a batch has said what the topics take.
        Ok(_) if !config.properties.contains_key("batch.size") => {
            max_message_bytes(&admin, topic).await
        }
        _ => None,
    };
    // Its end waits for its thread.
    tokio::task::spawn_blocking(move || drop(admin));
    Ok(Topic { created: created?, max_message_bytes })
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    config: &KafkaConfig,
    topic: &str,
) -> Result<bool> {
    let what = || format!("cannot create topic {topic}");
    let settings = &config.topics;
    // -1 leaves it to the broker.
    let replication = TopicReplication::Fixed(settings.replication_factor.unwrap_or(-1));
    let mut new = NewTopic::new(topic, settings.partitions.unwrap_or(-1), replication);
    for (key, value) in &settings.config {
        new = new.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
    let results = admin.create_topics([&new], &options).await;
    match results.map_err(|error| kafka_error(what(), error))?.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(code_error(what(), code)),
        None => Err(Error::new(ErrorKind::KafkaUnavailable, what())
            .caused_by("the broker gave no answer for it")),
    }
}

async fn max_message_bytes(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
) -> Option<usize> {
    let options = AdminOptions::new().request_timeout(Some(LIMIT_TIMEOUT));
    let resource = ResourceSpecifier::Topic(topic);
    // Without the right to ask, the usual batch has to do.
    let answer = admin.describe_configs([&resource], &options).await.ok()?;
    let config = answer.into_iter().next()?.ok()?;
    config.get("max.message.bytes")?.value.as_ref()?.parse().ok()
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
