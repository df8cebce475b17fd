//! DescribeConfigs and IncrementalAlterConfigs: the settings of topics.

use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
    incremental_alter_configs_request::AlterConfigsResource,
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};

use super::{Answer, Answerable, Call, Cluster, Code, Place, code_of, text};
use crate::fake_broker::topics::DEFAULTS;

/// Resource type of a topic.
const TOPIC: i8 = 2;
/// Sources of a value: the topic's own settings, and the default.
const OF_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;
/// Operations on a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;

impl Answerable for DescribeConfigsRequest {
    fn places(&self) -> Vec<Place> {
        let topics = self.resources.iter().filter(|resource| resource.resource_type == TOPIC);
        topics.map(|resource| (resource.resource_name.to_string(), None)).collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<DescribeConfigsResponse> {
        let results = self.resources.iter().map(|resource| {
            let described = describe(cluster, call, resource);
            DescribeConfigsResult::default()
                .with_error_code(code_of(&described))
                .with_error_message(None)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_configs(described.unwrap_or_default())
        });
        Answer::Now(DescribeConfigsResponse::default().with_results(results.collect()))
    }
}

fn describe(
    cluster: &Cluster,
    call: &Call,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Code> {
    // A broker has no settings here.
    if resource.resource_type != TOPIC {
        return Ok(Vec::new());
    }
    let name = &resource.resource_name;
    call.check(name, None)?;
    let topic = cluster.topics.get(name.as_str()).ok_or(Code::UnknownTopicOrPartition)?;
    let defaults = DEFAULTS.iter().map(|(name, _)| *name);
    let own = topic.settings.keys().map(String::as_str);
    let own = own.filter(|name| DEFAULTS.iter().all(|(known, _)| known != name));
    let wanted = |name: &&str| match &resource.configuration_keys {
        Some(keys) => keys.iter().any(|key| key.as_str() == *name),
        None => true,
    };
    let settings = defaults.chain(own).filter(wanted).filter_map(|name| {
        let (value, is_own) = topic.setting(name)?;
        let setting = DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_config_source(if is_own { OF_TOPIC } else { DEFAULT });
        Some(setting)
    });
    Ok(settings.collect())
}

impl Answerable for IncrementalAlterConfigsRequest {
    fn places(&self) -> Vec<Place> {
        let topics = self.resources.iter().filter(|resource| resource.resource_type == TOPIC);
        topics.map(|resource| (resource.resource_name.to_string(), None)).collect()
    }

    fn answer(
        &self,
        cluster: &mut Cluster,
        call: &Call,
    ) -> Answer<IncrementalAlterConfigsResponse> {
        let responses = self.resources.iter().map(|resource| {
            let result = alter(cluster, call, resource, self.validate_only);
            AlterConfigsResourceResponse::default()
                .with_error_code(code_of(&result))
                .with_error_message(None)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        let responses = responses.collect();
        Answer::Now(IncrementalAlterConfigsResponse::default().with_responses(responses))
    }
}

fn alter(
    cluster: &mut Cluster,
    call: &Call,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Code> {
    let name = &resource.resource_name;
    call.check(name, None)?;
    let topic = cluster.topics.get_mut(name.as_str());
    let topic = topic.filter(|_| resource.resource_type == TOPIC);
    let topic = topic.ok_or(Code::UnknownTopicOrPartition)?;
    for change in resource.configs.iter().filter(|_| !validate_only) {
        match (change.config_operation, &change.value) {
            (SET, Some(value)) => {
                topic.settings.insert(change.name.to_string(), value.to_string());
            }
            (DELETE, _) => {
                topic.settings.remove(change.name.as_str());
            }
            _ => return Err(Code::InvalidRequest),
        }
    }
    Ok(())
}
