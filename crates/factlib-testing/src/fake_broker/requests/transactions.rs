//! InitProducerId, AddPartitionsToTxn and EndTxn.

use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse,
    InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    add_partitions_to_txn_response::{
        AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
    },
};

use super::{Answer, Answerable, Call, Cluster, Code, Place};

/// First version of EndTxn that returns the next epoch (KIP-890).
const BUMPS_EPOCH: i16 = 5;

impl Answerable for InitProducerIdRequest {
    const APPENDS: bool = true;

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<InitProducerIdResponse> {
        let present = (self.producer_id.0, self.producer_epoch);
        let present = Some(present).filter(|(id, _)| *id >= 0);
        let begun = match (call.plan.refusal(), &self.transactional_id) {
            (Some(refusal), _) => Err(refusal.code),
            (None, Some(id)) => cluster.coordinator.begin(id, present).map(|(identity, ended)| {
                cluster.write_markers(ended);
                identity
            }),
            (None, None) => Ok((cluster.coordinator.new_producer_id(), 0)),
        };
        let response = InitProducerIdResponse::default();
        Answer::Now(match begun {
            Ok((id, epoch)) => response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
            Err(code) => response
                .with_error_code(code.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        })
    }
}

impl Answerable for AddPartitionsToTxnRequest {
    fn places(&self) -> Vec<Place> {
        let places = self.v3_and_below_topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| (topic.name.to_string(), Some(*partition)))
        });
        places.collect()
    }

    /// Adds all partitions or none: one that is refused stops the others.
    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<AddPartitionsToTxnResponse> {
        let check = |cluster: &mut Cluster, topic: &str, partition: i32| {
            call.check(topic, Some(partition))?;
            let found = cluster.partition(topic, partition).map(|_| ());
            found.ok_or(Code::UnknownTopicOrPartition)
        };
        let is_refused =
            self.places().iter().any(|(topic, n)| check(cluster, topic, n.unwrap_or(-1)).is_err());
        let identity = (self.v3_and_below_producer_id.0, self.v3_and_below_producer_epoch);
        let results = self.v3_and_below_topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let added = check(cluster, &topic.name, *partition).and_then(|()| {
                    if is_refused {
                        return Err(Code::OperationNotAttempted);
                    }
                    let place = (topic.name.to_string(), *partition);
                    let id = &self.v3_and_below_transactional_id;
                    cluster.coordinator.add(id, identity, place)
                });
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(*partition)
                    .with_partition_error_code(super::code_of(&added))
            });
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(partitions.collect())
        });
        let results = results.collect();
        Answer::Now(
            AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results),
        )
    }
}

impl Answerable for EndTxnRequest {
    const APPENDS: bool = true;

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<EndTxnResponse> {
        let bumps_epoch = call.version >= BUMPS_EPOCH;
        let identity = (self.producer_id.0, self.producer_epoch);
        let ended = match call.plan.refusal() {
            Some(refusal) => Err(refusal.code),
            None => {
                let coordinator = &mut cluster.coordinator;
                coordinator.end(&self.transactional_id, identity, self.committed, bumps_epoch)
            }
        };
        let response = EndTxnResponse::default();
        Answer::Now(match ended {
            Ok(((id, epoch), ended)) => {
                cluster.write_markers(ended);
                match bumps_epoch {
                    true => response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
                    false => response,
                }
            }
            Err(code) => response.with_error_code(code.code()),
        })
    }
}
