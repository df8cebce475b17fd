//! Administers topics: creates and deletes them, adds partitions, reads and changes settings.

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

/// Resource type of a topic (`ConfigResource.Type.TOPIC`).
const TOPIC: i8 = 2;

/// Source of a setting that was set on the topic itself (`ConfigSource.DYNAMIC_TOPIC_CONFIG`).
const OF_TOPIC: i8 = 1;

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Name of the topic.
    pub name: String,
    /// Number of partitions; none for the brokers' default (Kafka 2.4 or later).
    pub partitions: Option<i32>,
    /// Replicas of each partition; none for the brokers' default (Kafka 2.4 or later).
    pub replication_factor: Option<i16>,
    /// Names and values of the topic's own settings.
    pub settings: Vec<(String, String)>,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSetting {
    /// Value; none for a secret.
    pub value: Option<String>,
    /// True if the setting was set on the topic itself rather than on the brokers.
    pub is_own: bool,
}

impl Client {
    /// Creates a topic, or only validates the request.
    ///
    /// # Errors
    /// Returns the broker's error, for example `TOPIC_ALREADY_EXISTS`.
    pub async fn create_topic(&self, topic: &NewTopic, validate_only: bool) -> Result<()> {
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
            .with_validate_only(validate_only);
        let response = self.request_controller(&request, 7).await?;
        response.topics.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot create topic {}", topic.name)
            })
        })
    }

    /// Raises the number of partitions of a topic to `count`.
    ///
    /// # Errors
    /// Returns the broker's error.
    pub async fn add_partitions(&self, topic: &str, count: i32) -> Result<()> {
        let wanted = CreatePartitionsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(false);
        let response = self.request_controller(&request, 3).await?;
        response.results.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot add partitions to topic {topic}")
            })
        })
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// Returns the broker's error.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(text(topic))])
            .with_timeout_ms(self.timeout_ms());
        // Version 6 has the topic names in another field.
        let response = self.request_controller(&request, 5).await?;
        response.responses.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot delete topic {topic}")
            })
        })
    }

    /// Returns the given settings of a topic, by name.
    ///
    /// # Errors
    /// Returns the broker's error. The user needs the right `DescribeConfigs`.
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
        let response = self.request_any_broker(&request, 4).await?;
        let mut settings = BTreeMap::new();
        for result in response.results {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot read the settings of topic {topic}")
            })?;
            settings.extend(result.configs.into_iter().map(|setting| {
                let value = setting.value.map(|value| value.to_string());
                let is_own = setting.config_source == OF_TOPIC;
                (setting.name.to_string(), TopicSetting { value, is_own })
            }));
        }
        Ok(settings)
    }

    /// Changes one setting of a topic (Kafka 2.3 or later).
    ///
    /// # Errors
    /// Returns the broker's error. The user needs the right `AlterConfigs`.
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
        let response = self.request_controller(&request, 1).await?;
        response.responses.iter().try_for_each(|result| {
            check(result.error_code, result.error_message.as_deref(), || {
                format!("cannot change {name} of topic {topic}")
            })
        })
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from((self.settings.request_timeout / 2).as_millis()).unwrap_or(i32::MAX)
    }
}
