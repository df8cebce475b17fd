//! ListOffsets: the range of a partition's offsets, and the offset at a time.

use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_request::ListOffsetsPartition,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};

use super::{Answer, Answerable, Call, Cluster, Code, Place, code_of};

/// Special times: the end and the start of the log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Isolation level at which offsets end at the first open transaction.
const READ_COMMITTED: i8 = 1;

impl Answerable for ListOffsetsRequest {
    fn places(&self) -> Vec<Place> {
        let topics = self.topics.iter();
        let places = topics.flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.name.to_string(), Some(partition.partition_index)))
        });
        places.collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<ListOffsetsResponse> {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let found = find(cluster, call, &topic.name, wanted, self.isolation_level);
                let (timestamp, offset, epoch) = *found.as_ref().unwrap_or(&(-1, -1, -1));
                let response = ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(code_of(&found))
                    .with_timestamp(timestamp)
                    .with_offset(offset);
                match call.version {
                    0..4 => response,
                    _ => response.with_leader_epoch(epoch),
                }
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        Answer::Now(ListOffsetsResponse::default().with_topics(topics.collect()))
    }
}

/// Returns time, offset and leader epoch. By a time, it finds the start of the batch, where a real
/// broker finds the record.
fn find(
    cluster: &mut Cluster,
    call: &Call,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: i8,
) -> Result<(i64, i64, i32), Code> {
    call.check(topic, Some(wanted.partition_index))?;
    let partition = cluster.led_by(call.broker, topic, wanted.partition_index)?;
    let (log, epoch) = (&partition.log, partition.leader_epoch);
    Ok(match wanted.timestamp {
        LATEST if isolation == READ_COMMITTED => (-1, log.stable_end(), epoch),
        LATEST => (-1, log.end(), epoch),
        EARLIEST => (-1, log.start(), epoch),
        time => {
            let (time, offset) = log.at_time(time).unwrap_or((-1, -1));
            (time, offset, epoch)
        }
    })
}
