//! Translates the response to a Produce request into the result of a batch: acknowledged, refused
//! (and which records), to be tried again, or unknown.

use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use crate::{
    error::Code,
    partition::{Answer, Batch},
    receipt::Refusal,
    topic::Outgoing,
};

/// The result of a batch, read from a broker's response.
pub(crate) struct BatchResult {
    pub answer: Answer,
    /// Offset of the first record, if the broker says where it appended the batch.
    pub base_offset: Option<i64>,
    /// Error code and message of the batch; none if the broker accepted the batch.
    pub refusal: Option<Refusal>,
    /// Index, error code and message of each record that the broker names, in rising order.
    pub record_refusals: Vec<(u32, Refusal)>,
    /// True if another broker may lead the partition by now.
    pub leader_may_have_moved: bool,
}

impl BatchResult {
    /// Turns a refusal into a stop at the first record whose receipt asks for that.
    pub fn stop_for(&mut self, batch: &Outgoing) {
        let Some(of_batch) = &self.refusal else { return };
        let own = |place: u32| {
            let own = self.record_refusals.iter().find(|(index, _)| *index == place);
            own.map_or(of_batch, |(_, refusal)| refusal)
        };
        let stops = |place| batch.receipts.stops(place, own(place));
        let answer = std::mem::replace(&mut self.answer, Answer::Unknown);
        self.answer = answer.stopping(batch.records(), stops);
        if let Answer::Stopped { at, .. } = self.answer {
            self.record_refusals.retain(|(index, _)| *index <= at);
        }
    }
}

/// Reads the response for one partition.
pub(crate) fn read_response(response: &PartitionProduceResponse) -> BatchResult {
    let code = kafka_protocol::error::ParseResponseErrorCode::err(response.error_code);
    let Some(code) = code else {
        return BatchResult {
            answer: Answer::Acknowledged,
            base_offset: Some(response.base_offset).filter(|offset| *offset >= 0),
            refusal: None,
            record_refusals: Vec::new(),
            leader_may_have_moved: false,
        };
    };
    let batch_message = response.error_message.as_ref().map(ToString::to_string);
    let mut record_refusals: Vec<_> = response
        .record_errors
        .iter()
        .map(|record| {
            let message = record.batch_index_error_message.as_ref().map(ToString::to_string);
            let message = message.or_else(|| batch_message.clone());
            (u32::try_from(record.batch_index).unwrap_or(u32::MAX), Refusal { code, message })
        })
        .collect();
    record_refusals.sort_by_key(|(index, _)| *index);
    record_refusals.dedup_by_key(|(index, _)| *index);
    let message = record_refusals.iter().find_map(|(_, refusal)| refusal.message.clone());
    let message = message.or(batch_message);
    BatchResult {
        answer: answer(code, response),
        base_offset: None,
        refusal: Some(Refusal { code, message }),
        record_refusals,
        leader_may_have_moved: leader_may_have_moved(code),
    }
}

fn answer(code: Code, response: &PartitionProduceResponse) -> Answer {
    match code {
        // An earlier attempt has appended this batch.
        Code::DuplicateSequenceNumber => Answer::Acknowledged,
        // The broker validates before it appends anything (`LogValidator`, and schema validation
        // of some brokers), so the rest can be sent again without the records at fault.
        Code::InvalidRecord | Code::InvalidTimestamp | Code::PolicyViolation => {
            let records = response.record_errors.iter();
            Answer::Refused(records.filter_map(|r| u32::try_from(r.batch_index).ok()).collect())
        }
        Code::MessageTooLarge | Code::RecordListTooLarge => Answer::TooLarge,
        Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::InvalidProducerEpoch => {
            Answer::SequenceLost
        }
        // The batch may have been appended, but perhaps was not replicated.
        Code::NotEnoughReplicasAfterAppend | Code::RequestTimedOut | Code::UnknownServerError => {
            Answer::Unknown
        }
        // The broker did not append the batch: it no longer leads the partition, lacks replicas or
        // rights, or is busy.
        _ => Answer::NotNow,
    }
}

fn leader_may_have_moved(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderOrFollower
            | Code::LeaderNotAvailable
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::KafkaStorageError
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::produce_response::BatchIndexAndErrorMessage, protocol::StrBytes,
    };

    use super::*;

    #[test]
    fn each_record_that_is_named_has_its_own_words_or_those_of_the_batch() {
        let text = |text: &'static str| Some(StrBytes::from_static_str(text));
        let of = |index, words| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(index)
                .with_batch_index_error_message(words)
        };
        let response = PartitionProduceResponse::default()
            .with_error_code(Code::InvalidTimestamp.code())
            .with_error_message(text("one or more are refused"))
            .with_record_errors(vec![of(7, None), of(2, text("too old"))]);
        let result = read_response(&response);
        assert_eq!(result.answer, Answer::Refused(vec![7, 2]));
        let words: Vec<_> = result
            .record_refusals
            .iter()
            .filter_map(|(_, refusal)| refusal.message.as_deref())
            .collect();
        assert_eq!(words, ["too old", "one or more are refused"]);
        assert_eq!(result.refusal.and_then(|refusal| refusal.message).as_deref(), Some("too old"));
    }
}
