//! Errors of `factlib-kafka` as factlib's: which are of a record, of a topic, of the brokers.

use factlib_kafka::{Code, Refusal};
use rdkafka::types::RDKafkaErrorCode;

use crate::{
    Error, ErrorKind,
    kafka::{errors::code_error, verdict},
    record::Record,
};

/// The error of a record that the brokers will never take; `name` is what errors call it.
pub(super) fn refused(topic: &str, name: &str, record: &Record, refusal: &Refusal) -> Error {
    let place = verdict::RecordPlacement::of(record);
    verdict::refused_with(topic, name, place, known(refusal.code), refusal.to_string())
}

/// The error of a record for a partition that its topic does not have.
pub(super) fn no_partition(topic: &str, name: &str, record: &Record) -> Error {
    let place = verdict::RecordPlacement::of(record);
    let code = RDKafkaErrorCode::UnknownPartition;
    verdict::refused_with(topic, name, place, Some(code), code)
}

/// The error of a topic that the brokers do not take records for; none where it is the brokers
/// that can't be had, or where it passes by itself.
pub(super) fn of_topic(topic: &str, error: &factlib_kafka::Error) -> Option<Error> {
    let code = known(error.code()?)?;
    let what = format!("Kafka did not take a record for {topic}");
    let error = code_error(what, code);
    let is_of_topic = matches!(error.kind(), ErrorKind::TopicRefused | ErrorKind::TopicUnavailable);
    is_of_topic.then_some(error)
}

/// librdkafka's name for the codes that say more than "later".
fn known(code: Code) -> Option<RDKafkaErrorCode> {
    use RDKafkaErrorCode as Known;
    Some(match code {
        Code::MessageTooLarge | Code::RecordListTooLarge => Known::MessageSizeTooLarge,
        Code::InvalidTimestamp => Known::InvalidTimestamp,
        Code::InvalidRecord => Known::InvalidRecord,
        Code::PolicyViolation => Known::PolicyViolation,
        Code::InvalidTopicException => Known::InvalidTopic,
        Code::TopicAuthorizationFailed => Known::TopicAuthorizationFailed,
        Code::UnknownTopicOrPartition | Code::UnknownTopicId => Known::UnknownTopicOrPartition,
        Code::SaslAuthenticationFailed => Known::SaslAuthenticationFailed,
        Code::ClusterAuthorizationFailed => Known::ClusterAuthorizationFailed,
        _ => return None,
    })
}
