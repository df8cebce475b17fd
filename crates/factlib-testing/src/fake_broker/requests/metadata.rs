//! Metadata and FindCoordinator: brokers, topics and leaders.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse,
    TopicName,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};

use super::{Answer, Answerable, Call, Cluster, Code, Place, text};
use crate::fake_broker::topics::{Partition, Topic};

const HOST: &str = "127.0.0.1";
const CLUSTER_ID: &str = "fake-cluster-of-factlib";

impl Answerable for MetadataRequest {
    fn places(&self) -> Vec<Place> {
        let topics = self.topics.iter().flatten();
        topics.filter_map(|topic| Some((topic.name.as_ref()?.to_string(), None))).collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<MetadataResponse> {
        let names: Vec<String> = match &self.topics {
            // In version 0, no topic means all of them.
            Some(topics) if call.version > 0 || !topics.is_empty() => {
                self.places().into_iter().map(|(name, _)| name).collect()
            }
            _ => cluster.topics.keys().cloned().collect(),
        };
        let creates = self.allow_auto_topic_creation && cluster.options.auto_create_topics;
        let topics = names.into_iter().map(|name| {
            if creates && !cluster.topics.contains_key(&name) {
                // An illegal name is answered as an unknown one.
                let _ = cluster.create_topic(&name, None, None, BTreeMap::new(), false);
            }
            topic(cluster, call, name)
        });
        let topics = topics.collect();
        let brokers = cluster.listed().map(|(id, port)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(text(HOST))
                .with_port(i32::from(port))
        });
        let controller = cluster.listed().next().map_or(-1, |(id, _)| id);
        Answer::Now(
            MetadataResponse::default()
                .with_brokers(brokers.collect())
                .with_cluster_id(Some(text(CLUSTER_ID)))
                .with_controller_id(BrokerId(controller))
                .with_topics(topics),
        )
    }
}

fn topic(cluster: &Cluster, call: &Call, name: String) -> MetadataResponseTopic {
    let response = MetadataResponseTopic::default().with_name(Some(TopicName(text(&name))));
    let found = call
        .check(&name, None)
        .and_then(|()| cluster.topics.get(&name).ok_or(Code::UnknownTopicOrPartition));
    match found {
        Ok(topic) => {
            let partitions = topic.partitions.iter().enumerate();
            let partitions = partitions.map(|(i, found)| partition(cluster, topic, i, found));
            response.with_topic_id(topic.id).with_partitions(partitions.collect())
        }
        Err(code) => response.with_error_code(code.code()),
    }
}

fn partition(
    cluster: &Cluster,
    topic: &Topic,
    index: usize,
    partition: &Partition,
) -> MetadataResponsePartition {
    let has_leader = cluster.is_listed(partition.leader);
    let code = if has_leader { 0 } else { Code::LeaderNotAvailable.code() };
    let others = cluster.brokers.keys().copied().filter(|id| *id != partition.leader);
    let replicas: Vec<i32> =
        std::iter::once(partition.leader).chain(others).take(topic.replicas).collect();
    let ids = |up: bool| {
        let ids = replicas.iter().copied().filter(move |id| cluster.is_listed(*id) || !up);
        ids.map(BrokerId).collect::<Vec<_>>()
    };
    MetadataResponsePartition::default()
        .with_error_code(code)
        .with_partition_index(index as i32)
        .with_leader_id(BrokerId(if has_leader { partition.leader } else { -1 }))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(false))
        .with_isr_nodes(ids(true))
}

impl Answerable for FindCoordinatorRequest {
    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<FindCoordinatorResponse> {
        let (id, port) = cluster.listed().next().unwrap_or((-1, 0));
        Answer::Now(
            FindCoordinatorResponse::default()
                .with_error_code(call.code())
                .with_error_message(None)
                .with_node_id(BrokerId(id))
                .with_host(text(HOST))
                .with_port(i32::from(port)),
        )
    }
}
