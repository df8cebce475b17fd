//! Kafka's error codes as answers to a batch: which records are at fault, what passes, and what
//! nobody knows.

use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use crate::{error::Code, partition::Answer, topic::Refusal};

/// A broker's answer to a batch.
pub(crate) struct Judged {
    pub answer: Answer,
    /// The broker's code and words, unless it took the batch.
    pub refusal: Option<Refusal>,
    /// The same of each record that is named, in the order of the records.
    pub of_records: Vec<Refusal>,
    /// The leader may be another broker by now.
    pub is_misplaced: bool,
}

/// Reads the answer for a partition.
pub(crate) fn judge(response: &PartitionProduceResponse) -> Judged {
    let code = kafka_protocol::error::ParseResponseErrorCode::err(response.error_code);
    let Some(code) = code else {
        return Judged {
            answer: Answer::Acknowledged,
            refusal: None,
            of_records: Vec::new(),
            is_misplaced: false,
        };
    };
    let of_batch = response.error_message.as_ref().map(ToString::to_string);
    let mut named: Vec<_> = response
        .record_errors
        .iter()
        .map(|record| {
            let message = record.batch_index_error_message.as_ref().map(ToString::to_string);
            (record.batch_index, message.or_else(|| of_batch.clone()))
        })
        .collect();
    named.sort_by_key(|(index, _)| *index);
    named.dedup_by_key(|(index, _)| *index);
    let of_records: Vec<_> =
        named.into_iter().map(|(_, message)| Refusal { code, message }).collect();
    let message = of_records.iter().find_map(|refusal| refusal.message.clone()).or(of_batch);
    Judged {
        answer: answer(code, response),
        refusal: Some(Refusal { code, message }),
        of_records,
        is_misplaced: is_misplaced(code),
    }
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
        let judged = judge(&response);
        assert_eq!(judged.answer, Answer::Refused(vec![7, 2]));
        let words: Vec<_> =
            judged.of_records.iter().filter_map(|refusal| refusal.message.as_deref()).collect();
        assert_eq!(words, ["too old", "one or more are refused"]);
        assert_eq!(judged.refusal.and_then(|refusal| refusal.message).as_deref(), Some("too old"));
    }
}
