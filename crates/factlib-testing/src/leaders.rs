//! Moves the leaders of a topic's partitions to other brokers.

use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest, MetadataRequest, TopicName,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    elect_leaders_request::TopicPartitions,
    metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::StrBytes;

use crate::{
    Result,
    admin_request::{LIMIT, check, send},
};

const WHAT: &str = "cannot move the leaders of a topic";

/// The first replica of each partition is to lead it (`ElectionType.PREFERRED`).
const PREFERRED: i8 = 0;

/// Error codes of a partition that its preferred replica leads already, or that has just been
/// created (`ELECTION_NOT_NEEDED`, `UNKNOWN_TOPIC_OR_PARTITION`, `PREFERRED_LEADER_NOT_AVAILABLE`).
const NOTHING_TO_MOVE: [i16; 3] = [84, 3, 80];

/// Has the next replica of each partition lead it, in order: records in flight to the present leaders
/// are refused, and nothing is lost. Returns the number of partitions; 0 if there is no such topic.
///
/// # Errors
/// The brokers can't be reached, or refuse.
pub async fn move_leaders(bootstrap: &str, topic: &str) -> Result<usize> {
    let name = || TopicName(StrBytes::from_string(topic.to_owned()));
    let wanted = MetadataRequestTopic::default().with_name(Some(name()));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let metadata = send(bootstrap, &request, 12, WHAT).await?;
    let partitions = metadata.topics.into_iter().filter(|topic| topic.error_code == 0);
    let partitions: Vec<_> = partitions.flat_map(|topic| topic.partitions).collect();
    if partitions.is_empty() {
        return Ok(0);
    }
    let rotated = partitions.iter().map(|partition| {
        let mut replicas: Vec<BrokerId> = partition.replica_nodes.clone();
        let leader = replicas.iter().position(|replica| *replica == partition.leader_id);
        let count = replicas.len().max(1);
        replicas.rotate_left((leader.unwrap_or(0) + 1) % count);
        ReassignablePartition::default()
            .with_partition_index(partition.partition_index)
            .with_replicas(Some(replicas))
    });
    let rotated = ReassignableTopic::default().with_name(name()).with_partitions(rotated.collect());
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(LIMIT.as_millis() as i32)
        .with_topics(vec![rotated]);
    let response = send(bootstrap, &request, 0, WHAT).await?;
    check([response.error_code], WHAT)?;
    let all = response.responses.iter().flat_map(|topic| &topic.partitions);
    check(all.map(|partition| partition.error_code), WHAT)?;
    let indexes = partitions.iter().map(|partition| partition.partition_index);
    let elected = TopicPartitions::default().with_topic(name()).with_partitions(indexes.collect());
    let request = ElectLeadersRequest::default()
        .with_election_type(PREFERRED)
        .with_topic_partitions(Some(vec![elected]))
        .with_timeout_ms(LIMIT.as_millis() as i32);
    let response = send(bootstrap, &request, 2, WHAT).await?;
    check([response.error_code], WHAT)?;
    let all = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    let all = all.map(|partition| partition.error_code);
    check(all.filter(|code| !NOTHING_TO_MOVE.contains(code)), WHAT)?;
    Ok(partitions.len())
}
