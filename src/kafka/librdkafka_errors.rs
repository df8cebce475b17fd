//! Converts librdkafka's errors, of the producers that still use it.

use std::error::Error as _;

use factlib_postgres::certificate::is_certificate_refused;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaErrorCode as Code,
};

use super::is_secret;
use crate::{Error, ErrorKind};

/// An error of the client, with what was attempted.
pub(crate) fn kafka_error(what: impl Into<String>, error: KafkaError) -> Error {
    if let KafkaError::ClientConfig(_, why, property, value) = &error {
        return Error::new(ErrorKind::Config, what).caused_by(misset(why, property, value));
    }
    // A certificate that is being replaced, or a thread that the system refuses, may pass.
    if let KafkaError::ClientCreation(why) = &error
        && why.contains("must be set")
    {
        let what = format!("{}: kafka.properties do not fit together", what.into());
        return Error::new(ErrorKind::Config, what).caused_by(why.clone());
    }
    let code = code_in(&error);
    let kind = code.map_or(ErrorKind::KafkaUnavailable, kind);
    with_remedy(Error::new(kind, what), code).caused_by(error)
}

/// Describes an invalid property, without a secret's value: librdkafka's text includes the value,
/// and a mistyped name may be that of a secret.
fn misset(why: &str, property: &str, value: &str) -> String {
    match why.contains(value) && is_secret(property) {
        true => format!("kafka.properties.{property} has a value that librdkafka does not take"),
        false => format!("kafka.properties.{property}: {why}"),
    }
}

/// Makes an error from one that librdkafka reported on its own, with its reason as the cause.
pub(crate) fn client_error(what: impl Into<String>, error: KafkaError, reason: &str) -> Error {
    let refused = |what: String, remedy| Error::new(ErrorKind::KafkaRefused, what).remedy(remedy);
    let error = match what.into() {
        what if is_untrusted(reason) => refused(what, "check kafka.tls_ca"),
        what if is_certificate_refused(reason) => refused(
            what,
            "the broker wants a certificate of an authority that it knows: set \
             kafka.tls_certificate and kafka.tls_key",
        ),
        what => kafka_error(what, error),
    };
    match connection_remedy(reason) {
        Some(remedy) if error.advice().is_none() => error.remedy(remedy),
        _ => error,
    }
    .caused_by(reason.to_owned())
}

/// Remedy for a failed connection, by librdkafka's words; none if there is nothing more to say than
/// that the brokers have to be reachable.
fn connection_remedy(reason: &str) -> Option<&'static str> {
    // Who was reached as another says its number: that address the brokers told us.
    let bootstrap = reason.split(": ").next().is_some_and(|name| name.ends_with("/bootstrap"));
    if reason.contains("Failed to resolve") {
        return Some(match bootstrap {
            true => "correct kafka.brokers, or the DNS of this machine",
            false => {
                "the brokers advertise an address that this machine can't resolve: correct \
                 advertised.listeners there, or the DNS of this machine"
            }
        });
    }
    // OpenSSL's words for an answer that is not TLS, and librdkafka's guess at it.
    let no_tls = ["wrong version number", "connecting to a PLAINTEXT broker listener"];
    no_tls.iter().any(|words| reason.contains(words)).then_some(
        "the listener speaks no TLS: name the one that does in kafka.brokers, or set kafka.tls = \
         false",
    )
}

/// librdkafka can't verify the broker's certificate, and does not say why.
pub(crate) fn is_untrusted(reason: &str) -> bool {
    reason.contains("broker certificate could not be verified")
}

/// Makes an error from a bare error code.
#[cfg(test)]
fn code_error(what: impl Into<String>, code: RDKafkaErrorCode) -> Error {
    with_remedy(Error::new(kind(code), what), Some(code)).caused_by(code)
}

fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    match code {
        // The record itself: sent again, it is refused again.
        Code::MessageSizeTooLarge => ErrorKind::RecordTooLarge,
        Code::InvalidRecord | Code::InvalidMessageSize => ErrorKind::RecordRefused,
        // The topic alone: asked for again, it is refused again.
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::PolicyViolation => ErrorKind::TopicRefused,
        // The topic alone, until somebody gives a right, starts a broker or creates it.
        Code::TopicAuthorizationFailed
        | Code::InvalidReplicationFactor
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::ThrottlingQuotaExceeded => ErrorKind::TopicUnavailable,
        // No topic can be had, until somebody changes a setting or a right.
        Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::ClusterAuthorizationFailed
        | Code::UnsupportedSASLMechanism
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::SecurityDisabled => ErrorKind::KafkaRefused,
        // Everything else has to do with brokers that come and go.
        _ => ErrorKind::KafkaUnavailable,
    }
}

/// The code in an error of the client; of an administrator's question, it does not say it itself.
fn code_in(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    }
}

/// The code of a broker or of librdkafka that led to the error.
fn code_of(error: &Error) -> Option<RDKafkaErrorCode> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<RDKafkaErrorCode>() {
            return Some(*code);
        }
        if let Some(code) = error.downcast_ref::<KafkaError>() {
            return code_in(code);
        }
        cause = error.source();
    }
    None
}

/// True if the user lacks a right on the topic.
pub(super) fn lacks_right(error: &Error) -> bool {
    code_of(error) == Some(Code::TopicAuthorizationFailed)
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
        Some(Code::InvalidTopic) => {
            "to Kafka '.' and '_' are the same in a name: is there a topic that differs by these alone?"
        }
        Some(Code::InvalidConfig) => "correct kafka.topics.config",
        Some(Code::PolicyViolation) => {
            "the brokers' create.topic.policy forbids it: correct kafka.topics, or create the topic"
        }
        _ => return error,
    };
    error.remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_together_are_a_mistake_and_what_else_makes_no_client_may_pass() {
        let of = |why: &str| kafka_error("no client", KafkaError::ClientCreation(why.into()));
        let error = of("`a` must be set <= `b`");
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = "no client: kafka.properties do not fit together";
        assert!(error.to_string().starts_with(text), "{error}");
        for why in ["Resource temporarily unavailable (os error 11)", "ssl.ca.location failed: …"]
        {
            assert!(of(why).is_transient(), "{why}");
        }
    }

    #[test]
    fn what_can_be_done_is_said() {
        let login = "check kafka.username, kafka.password, kafka.sasl_mechanism and kafka.tls";
        for (code, remedy) in [
            (
                Code::MessageSizeTooLarge,
                "raise max.message.bytes of the topic, or message.max.bytes of the broker",
            ),
            (Code::SaslAuthenticationFailed, login),
            (
                Code::TopicAuthorizationFailed,
                "the user needs the ACLs Describe and Write on the topic, and Create where factlib \
                 creates it",
            ),
            (
                Code::UnknownTopic,
                "create the topic, or let factlib do so with kafka.topics.create = true",
            ),
            (
                Code::InvalidReplicationFactor,
                "the cluster has fewer brokers than kafka.topics.replication_factor",
            ),
            (
                Code::InvalidTopic,
                "to Kafka '.' and '_' are the same in a name: is there a topic that differs by \
                 these alone?",
            ),
            (Code::InvalidConfig, "correct kafka.topics.config"),
            (
                Code::PolicyViolation,
                "the brokers' create.topic.policy forbids it: correct kafka.topics, or create the \
                 topic",
            ),
        ] {
            assert_eq!(code_error("no", code).advice(), Some(remedy), "{code}");
        }
        let unknown = || KafkaError::MessageProduction(Code::SSL);
        for (reason, remedy) in [
            ("broker certificate could not be verified, verify that", "check kafka.tls_ca"),
            (
                "alert certificate required",
                "the broker wants a certificate of an authority that it knows: set \
                 kafka.tls_certificate and kafka.tls_key",
            ),
        ] {
            let error = client_error("no", unknown(), reason);
            assert_eq!((error.kind(), error.advice()), (ErrorKind::KafkaRefused, Some(remedy)));
        }
    }

    #[test]
    fn a_connection_that_can_t_be_made_has_the_remedy_of_its_reason() {
        let remedy = |reason: &str| {
            let error = KafkaError::Global(Code::Resolve);
            client_error("no", error, reason).advice().map(str::to_owned)
        };
        let failed = "Failed to resolve 'b:9092': Name or service not known";
        let ours = remedy(&format!("b:9092/bootstrap: {failed} (after 1ms in state CONNECT)"));
        assert_eq!(ours.as_deref(), Some("correct kafka.brokers, or the DNS of this machine"));
        let theirs = remedy(&format!("b:9092/1: {failed} (after 1ms in state CONNECT)"));
        let text = "the brokers advertise an address that this machine can't resolve: correct \
                    advertised.listeners there, or the DNS of this machine";
        assert_eq!(theirs.as_deref(), Some(text));
        let handshake = "ssl://b:9092/bootstrap: SSL handshake failed: wrong version number";
        let text = "the listener speaks no TLS: name the one that does in kafka.brokers, or set \
                    kafka.tls = false";
        assert_eq!(remedy(handshake).as_deref(), Some(text));
        assert_eq!(remedy("b:9092/1: Connect to ipv4#127.0.0.1:9092 failed: refused"), None);
    }

    #[test]
    fn a_value_that_may_be_a_secret_is_not_repeated() {
        let misset = |property| misset("Invalid value \"hunter2\"", property, "hunter2");
        let text = "kafka.properties.ssl.key.password has a value that librdkafka does not take";
        assert_eq!(misset("ssl.key.password"), text);
        assert_eq!(misset("linger.ms"), "kafka.properties.linger.ms: Invalid value \"hunter2\"");
    }
}
