//! CreateTopics, DeleteTopics and CreatePartitions.

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult, create_topics_request::CreatableTopic,
    create_topics_response::CreatableTopicResult, delete_topics_response::DeletableTopicResult,
};

use super::{Answer, Answerable, Call, Cluster, Code, Place, code_of, text};

impl Answerable for CreateTopicsRequest {
    fn places(&self) -> Vec<Place> {
        self.topics.iter().map(|topic| (topic.name.to_string(), None)).collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<CreateTopicsResponse> {
        let create = |topic: &CreatableTopic| {
            let result = create(cluster, call, topic, self.validate_only);
            let (code, message) = match result {
                Ok(()) => (0, None),
                Err((code, message)) => (code.code(), message),
            };
            CreatableTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code)
                .with_error_message(message.as_deref().map(text))
                .with_configs(Some(Vec::new()))
        };
        let topics = self.topics.iter().map(create).collect();
        Answer::Now(CreateTopicsResponse::default().with_topics(topics))
    }
}

fn create(
    cluster: &mut Cluster,
    call: &Call,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(), (Code, Option<String>)> {
    if let Some(refusal) = call.refusal(&topic.name, None) {
        return Err((refusal.code, refusal.message.clone()));
    }
    let settings = topic.configs.iter().filter_map(|setting| {
        Some((setting.name.to_string(), setting.value.as_ref()?.to_string()))
    });
    let (settings, partitions) = (settings.collect(), topic.num_partitions);
    let partitions = Some(partitions).filter(|count| *count != -1);
    let replicas = Some(topic.replication_factor).filter(|count| *count != -1);
    let created = cluster.create_topic(&topic.name, partitions, replicas, settings, validate_only);
    created.map_err(|(code, message)| (code, Some(message)))
}

impl Answerable for DeleteTopicsRequest {
    fn places(&self) -> Vec<Place> {
        self.topic_names.iter().map(|name| (name.to_string(), None)).collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<DeleteTopicsResponse> {
        let responses = self.topic_names.iter().map(|name| {
            let result = call.check(name, None).and_then(|()| {
                cluster.topics.remove(name.as_str()).ok_or(Code::UnknownTopicOrPartition)
            });
            DeletableTopicResult::default()
                .with_name(Some(name.clone()))
                .with_error_code(code_of(&result))
        });
        Answer::Now(DeleteTopicsResponse::default().with_responses(responses.collect()))
    }
}

impl Answerable for CreatePartitionsRequest {
    fn places(&self) -> Vec<Place> {
        self.topics.iter().map(|topic| (topic.name.to_string(), None)).collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<CreatePartitionsResponse> {
        let results = self.topics.iter().map(|topic| {
            let result = grow(cluster, call, topic, self.validate_only);
            CreatePartitionsTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code_of(&result))
                .with_error_message(None)
        });
        Answer::Now(CreatePartitionsResponse::default().with_results(results.collect()))
    }
}

fn grow(
    cluster: &mut Cluster,
    call: &Call,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Code> {
    call.check(&wanted.name, None)?;
    let brokers: Vec<i32> = cluster.brokers.keys().copied().collect();
    let topic = cluster.topics.get_mut(wanted.name.as_str());
    let topic = topic.ok_or(Code::UnknownTopicOrPartition)?;
    let count = usize::try_from(wanted.count).unwrap_or_default();
    if count <= topic.partitions.len() {
        return Err(Code::InvalidPartitions);
    }
    if !validate_only {
        topic.grow(count, &brokers);
    }
    Ok(())
}
