//! librdkafka's errors as factlib's: which are final and which pass.

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaErrorCode as Code,
};

use crate::{Error, ErrorKind};

/// An error of the client, with what was attempted.
pub(crate) fn kafka_error(what: impl Into<String>, error: KafkaError) -> Error {
    let kind = match &error {
        KafkaError::ClientConfig(..) => ErrorKind::Config,
        other => other.rdkafka_error_code().map_or(ErrorKind::KafkaUnavailable, kind),
    };
    with_remedy(Error::new(kind, what), error.rdkafka_error_code()).caused_by(error)
}

/// An error code that came without its error.
pub(crate) fn code_error(what: impl Into<String>, code: RDKafkaErrorCode) -> Error {
    with_remedy(Error::new(kind(code), what), Some(code)).caused_by(code)
}

fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    match code {
        // The record itself: sent again, it is refused again.
        Code::MessageSizeTooLarge => ErrorKind::RecordTooLarge,
        Code::InvalidRecord | Code::InvalidMessageSize => ErrorKind::RecordRefused,
        // Somebody has to change a setting or a right.
        Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnsupportedSASLMechanism
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::PolicyViolation
        | Code::SecurityDisabled => ErrorKind::KafkaRefused,
        // Everything else has to do with brokers that come and go.
        _ => ErrorKind::KafkaUnavailable,
    }
}

fn with_remedy(error: Error, code: Option<RDKafkaErrorCode>) -> Error {
    let remedy = match code {
        Some(Code::MessageSizeTooLarge) => {
            "raise max.message.bytes of the topic, or message.max.bytes of the broker"
        }
        Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
            "check kafka.username, kafka.password, kafka.sasl_mechanism and kafka.tls"
        }
        Some(Code::TopicAuthorizationFailed) => {
            "the user needs the ACLs Describe and Write on the topic, and Create where factlib creates it"
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            "create the topic, or let factlib do so with kafka.topics.create = true"
        }
        Some(Code::InvalidReplicationFactor) => {
            "the cluster has fewer brokers than kafka.topics.replication_factor"
        }
        _ => return error,
    };
    error.remedy(remedy)
}
