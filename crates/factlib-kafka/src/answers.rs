//! Kafka's error codes as answers to a batch: which records are at fault, what passes, and what
//! nobody knows.

use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use crate::{error::Code, partition::Answer, topic::Refusal};

/// A broker's answer to a batch.
pub(crate) struct Judged {
    pub answer: Answer,
    /// The broker's code and words, unless it took the batch.
    pub refusal: Option<Refusal>,
    /// The leader may be another broker by now.
    pub is_misplaced: bool,
}

/// Reads the answer for a partition.
pub(crate) fn judge(response: &PartitionProduceResponse) -> Judged {
    let code = kafka_protocol::error::ParseResponseErrorCode::err(response.error_code);
    let Some(code) = code else {
        return Judged { answer: Answer::Acknowledged, refusal: None, is_misplaced: false };
    };
    let answer = answer(code, response);
    let of_record = response
        .record_errors
        .iter()
        .find_map(|record| record.batch_index_error_message.as_ref().map(ToString::to_string));
    let message = of_record.or_else(|| response.error_message.as_ref().map(ToString::to_string));
    let refusal = Refusal { code, message };
    Judged { answer, refusal: Some(refusal), is_misplaced: is_misplaced(code) }
}

fn answer(code: Code, response: &PartitionProduceResponse) -> Answer {
    match code {
        // It is there, from an earlier sending.
        Code::DuplicateSequenceNumber => Answer::Acknowledged,
        // Validation comes before anything is appended: these can be sent again without the
        // records at fault (`LogValidator`, and schema validation of some brokers).
        Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => {
            let places = response.record_errors.iter();
            Answer::Refused(places.filter_map(|r| u32::try_from(r.batch_index).ok()).collect())
        }
        Code::MessageTooLarge | Code::RecordListTooLarge => Answer::TooLarge,
        Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::InvalidProducerEpoch => {
            Answer::SequenceLost
        }
        // Appended, and not known to be replicated.
        Code::NotEnoughReplicasAfterAppend | Code::RequestTimedOut | Code::UnknownServerError => {
            Answer::Unknown
        }
        // The broker did nothing with it: it leads no more, lacks replicas or rights, or is busy.
        _ => Answer::NotNow,
    }
}

fn is_misplaced(code: Code) -> bool {
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
