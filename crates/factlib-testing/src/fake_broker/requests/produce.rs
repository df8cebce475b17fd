//! Produce: checks batches, appends them, and names the records at fault.

use bytes::Bytes;
use kafka_protocol::messages::{
    ProduceRequest, ProduceResponse,
    produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse},
};

use super::{Answer, Answerable, Call, Cluster, Code, Place, Refusal, text};
use crate::fake_broker::batch::Batch;

/// First version in which the leader adds the partition to the transaction (KIP-890).
const ADDS_PARTITIONS: i16 = 12;
/// Level of `transaction.version` for that.
const ADDS_PARTITIONS_LEVEL: i16 = 2;
/// First version with messages for records.
const HAS_MESSAGES: i16 = 8;

impl Answerable for ProduceRequest {
    const APPENDS: bool = true;

    fn places(&self) -> Vec<Place> {
        let places = self.topic_data.iter().flat_map(|topic| {
            let partitions = topic.partition_data.iter();
            partitions.map(|partition| (topic.name.to_string(), Some(partition.index)))
        });
        places.collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<ProduceResponse> {
        let responses = self.topic_data.iter().map(|topic| {
            let partitions = topic.partition_data.iter().map(|partition| {
                let place = (topic.name.to_string(), partition.index);
                let records = partition.records.clone().unwrap_or_default();
                let appended = append(self, cluster, call, &place, &records);
                response(call, &place, appended)
            });
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(partitions.collect())
        });
        let response = ProduceResponse::default()
            .with_responses(responses.collect())
            .with_throttle_time_ms(call.plan.throttle_ms());
        match self.acks {
            0 => Answer::Never,
            _ => Answer::Now(response),
        }
    }
}

fn append(
    request: &ProduceRequest,
    cluster: &mut Cluster,
    call: &Call,
    (topic, partition): &(String, i32),
    records: &Bytes,
) -> Result<i64, Refusal> {
    if let Some(refusal) = call.refusal(topic, Some(*partition)) {
        return Err(refusal.clone());
    }
    let appended = checked(request, cluster, call, &(topic.clone(), *partition), records);
    let refusal = call.plan.refusal_after_effect(topic, Some(*partition));
    match (appended, refusal) {
        (Ok(_), Some(refusal)) => Err(refusal.clone()),
        (Ok(offset), None) => Ok(offset),
        (Err(code), _) => Err(Refusal { code, message: None, records: Vec::new() }),
    }
}

fn checked(
    request: &ProduceRequest,
    cluster: &mut Cluster,
    call: &Call,
    place: &(String, i32),
    records: &Bytes,
) -> Result<i64, Code> {
    let (name, partition) = place;
    let leader_epoch = cluster.led_by(call.broker, name, *partition)?.leader_epoch;
    let topic = cluster.topics.get(name).ok_or(Code::UnknownTopicOrPartition)?;
    let rules = topic.rules(cluster.options.first_sequence, leader_epoch);
    let in_sync = cluster.listed().count().min(topic.replicas);
    let needed = topic.setting("min.insync.replicas").and_then(|(count, _)| count.parse().ok());
    if request.acks == -1 && needed.is_some_and(|needed: usize| needed > in_sync) {
        return Err(Code::NotEnoughReplicas);
    }
    let batch = Batch::parse(records)?;
    match &request.transactional_id {
        Some(id) => {
            let adds = call.version >= ADDS_PARTITIONS
                && cluster.options.transaction_version >= ADDS_PARTITIONS_LEVEL;
            let identity = (batch.producer_id, batch.epoch);
            match adds {
                true => cluster.coordinator.add(id, identity, place.clone())?,
                false => cluster.coordinator.check(id, identity, place)?,
            }
        }
        None if batch.is_transactional() => return Err(Code::InvalidRequest),
        None => {}
    }
    cluster.led_by(call.broker, name, *partition)?.log.append(batch, &rules)
}

fn response(
    call: &Call,
    (_, partition): &(String, i32),
    appended: Result<i64, Refusal>,
) -> PartitionProduceResponse {
    let response =
        PartitionProduceResponse::default().with_index(*partition).with_error_message(None);
    match appended {
        Ok(offset) => response.with_base_offset(offset),
        Err(refusal) => {
            let response = response.with_error_code(refusal.code.code()).with_base_offset(-1);
            if call.version < HAS_MESSAGES {
                return response;
            }
            let message = refusal.message.as_deref().map(text);
            let record = |index: &i32| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*index)
                    .with_batch_index_error_message(message.clone())
            };
            response
                .with_record_errors(refusal.records.iter().map(record).collect())
                .with_error_message(message.clone())
        }
    }
}
