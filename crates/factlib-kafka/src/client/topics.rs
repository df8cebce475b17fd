//! Topics: made, grown, deleted, and their settings.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, TopicName,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use super::{Client, Result, check, text};

/// A topic among the resources that have settings.
const TOPIC: i8 = 2;

/// The setting was given to the topic itself (`ConfigSource.DYNAMIC_TOPIC_CONFIG`).
const OF_TOPIC: i8 = 1;

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// None for the brokers' default (Kafka 2.4 on).
    pub partitions: Option<i32>,
    /// None for the brokers' default (Kafka 2.4 on).
    pub replication_factor: Option<i16>,
    /// Settings of its own.
    pub settings: Vec<(String, String)>,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSetting {
    /// None for a secret.
    pub value: Option<String>,
    /// The topic's own, and not the brokers' default.
    pub is_own: bool,
}

impl Client {
    /// Creates a topic, or only asks whether it would be.
    ///
    /// # Errors
    /// The broker's, `TOPIC_ALREADY_EXISTS` among them.
    pub async fn create_topic(&self, topic: &NewTopic, only_ask: bool) -> Result<()> {
        let settings = topic.settings.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let new = CreatableTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(topic.replication_factor.unwrap_or(-1))
            .with_assignments(Vec::new())
            .with_configs(settings.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(only_ask);
        let answer = self.ask_controller(&request, 7).await?;
        answer.topics.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot create topic {}", topic.name)
            })
        })
    }

    /// Gives a topic more partitions, so many in all.
    ///
    /// # Errors
    /// The broker's.
    pub async fn add_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let wanted = CreatePartitionsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(false);
        let answer = self.ask_controller(&request, 3).await?;
        answer.results.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot add partitions to topic {topic}")
            })
        })
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// The broker's.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(text(topic))])
            .with_timeout_ms(self.timeout_ms());
        // Version 6 names topics in another field.
        let answer = self.ask_controller(&request, 5).await?;
        answer.responses.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot delete topic {topic}")
            })
        })
    }

    /// The settings of these names that a topic has, by name.
    ///
    /// # Errors
    /// The broker's: the user needs the right `DescribeConfigs`.
    pub async fn topic_settings(
        &self,
        topic: &str,
        names: &[&str],
    ) -> Result<BTreeMap<String, TopicSetting>> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configuration_keys(Some(names.iter().map(|name| text(name)).collect()));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.ask_anyone(&request, 4).await?;
        let mut settings = BTreeMap::new();
        for result in answer.results {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot ask for the settings of topic {topic}")
            })?;
            settings.extend(result.configs.into_iter().map(|setting| {
                let value = setting.value.map(|value| value.to_string());
                let is_own = setting.config_source == OF_TOPIC;
                (setting.name.to_string(), TopicSetting { value, is_own })
            }));
        }
        Ok(settings)
    }

    /// Changes one setting of a topic (Kafka 2.3 on).
    ///
    /// # Errors
    /// The broker's: the user needs the right `AlterConfigs`.
    pub async fn set_topic_setting(&self, topic: &str, name: &str, value: &str) -> Result<()> {
        let change = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(0)
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![resource])
            .with_validate_only(false);
        let answer = self.ask_controller(&request, 1).await?;
        answer.responses.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot change {name} of topic {topic}")
            })
        })
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from((self.settings.request_timeout / 2).as_millis()).unwrap_or(i32::MAX)
    }
}
