//! Fetch: record batches from an offset on, and which of them were aborted.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ProducerId,
    fetch_request::FetchPartition,
    fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
};

use super::{Answer, Answerable, Call, Cluster, Code, Place};

/// Isolation level at which records of open transactions are left out.
const READ_COMMITTED: i8 = 1;

impl Answerable for FetchRequest {
    fn places(&self) -> Vec<Place> {
        let places = self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.topic.to_string(), Some(partition.partition)))
        });
        places.collect()
    }

    fn answer(&self, cluster: &mut Cluster, call: &Call) -> Answer<FetchResponse> {
        let (mut bytes, mut has_error) = (0, false);
        let mut left = usize::try_from(self.max_bytes).unwrap_or_default();
        let responses = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let is_committed = self.isolation_level == READ_COMMITTED;
                let read = read(cluster, call, &topic.topic, wanted, is_committed, left);
                match read {
                    Ok(data) => {
                        let read = data.records.as_ref().map_or(0, Bytes::len);
                        bytes += read;
                        left = left.saturating_sub(read);
                        data
                    }
                    Err(code) => {
                        has_error = true;
                        PartitionData::default()
                            .with_error_code(code.code())
                            .with_high_watermark(-1)
                            .with_records(Some(Bytes::new()))
                    }
                }
                .with_partition_index(wanted.partition)
            });
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        let responses = responses.collect();
        let is_enough = bytes >= usize::try_from(self.min_bytes).unwrap_or_default();
        if !is_enough && !has_error && !call.is_late {
            let wait = u64::try_from(self.max_wait_ms).unwrap_or_default();
            return Answer::Wait(Duration::from_millis(wait));
        }
        Answer::Now(
            FetchResponse::default()
                .with_throttle_time_ms(call.plan.throttle_ms())
                .with_responses(responses),
        )
    }
}

fn read(
    cluster: &mut Cluster,
    call: &Call,
    topic: &str,
    wanted: &FetchPartition,
    is_committed: bool,
    left: usize,
) -> Result<PartitionData, Code> {
    call.check(topic, Some(wanted.partition))?;
    let log = &cluster.led_by(call.broker, topic, wanted.partition)?.log;
    let from = wanted.fetch_offset;
    if !(log.start()..=log.end()).contains(&from) {
        return Err(Code::OffsetOutOfRange);
    }
    let until = if is_committed { log.stable_end() } else { log.end() };
    let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or_default().min(left);
    // What is too large comes with the next request, which asks for it first.
    let records = match left {
        0 => Bytes::new(),
        _ => log.read(from, until, max_bytes),
    };
    let aborted = log.aborted(from, until).map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first_offset)
    });
    Ok(PartitionData::default()
        .with_high_watermark(log.end())
        .with_last_stable_offset(log.stable_end())
        .with_log_start_offset(log.start())
        .with_aborted_transactions(is_committed.then(|| aborted.collect()))
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(records)))
}
