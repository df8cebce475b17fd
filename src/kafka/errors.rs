//! Converts errors of the Kafka client into factlib's, with their kind (permanent or transient)
//! and remedy.

use std::{error::Error as _, io};

use factlib_kafka::{
    Code, Error as ClientError, Refusal,
    tls::{Problem, TlsError},
};
use factlib_tls::refusal::is_own_certificate_refused;

use crate::{Error, ErrorKind, record::Record};

const LOGIN: &str = "check kafka.username, kafka.password, kafka.sasl_mechanism and kafka.tls";
const TOO_LARGE: &str = "raise max.message.bytes of the topic, or message.max.bytes of the broker";

/// Makes an error from the client's. `what` says what a broker refused; an error without a broker's
/// answer says that `brokers` can't be reached.
pub(crate) fn client_error(brokers: &str, what: impl Into<String>, error: ClientError) -> Error {
    match error {
        ClientError::Broker { code, message, .. } if !is_of_login(code) => {
            broker_error(what, code, message)
        }
        error => connection_error(brokers, error),
    }
}

/// Makes an error from a broker's answer.
pub(crate) fn broker_error(what: impl Into<String>, code: Code, message: Option<String>) -> Error {
    let error = Error::new(kind(code), what).caused_by(Refusal::new(code, message));
    match remedy_of(code) {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Makes an error from one that no broker answered with, or that refuses the login.
fn connection_error(brokers: &str, error: ClientError) -> Error {
    let (kind, remedy) = match &error {
        ClientError::Connection { address, source } => {
            let tls = source.get_ref().and_then(|source| source.downcast_ref::<TlsError>());
            if let Some(TlsError::Untrusted { reason, problem, authorities }) = tls {
                let what =
                    format!("the TLS certificate of Kafka at {address} can't be trusted: {reason}");
                let error = Error::new(ErrorKind::KafkaRefused, what);
                return error.remedy(untrusted_remedy(*problem, authorities.as_deref()));
            }
            match tls_remedy(tls, source) {
                Some((kind, remedy)) => (kind, Some(remedy)),
                None => (ErrorKind::KafkaUnavailable, None),
            }
        }
        ClientError::Unresolved { address, .. } => {
            let is_ours = brokers.split(',').any(|broker| broker == &**address);
            let remedy = match is_ours {
                true => "correct kafka.brokers, or the DNS of this machine",
                false => {
                    "the brokers advertise an address that this machine can't resolve: correct \
                     advertised.listeners there, or the DNS of this machine"
                }
            };
            (ErrorKind::KafkaUnavailable, Some(remedy))
        }
        ClientError::WantsTls { .. } => (
            ErrorKind::KafkaUnavailable,
            Some("set kafka.tls = true, and kafka.tls_ca for an authority of your own"),
        ),
        ClientError::HungUp { .. } => (
            ErrorKind::KafkaUnavailable,
            Some(
                "if the broker is up, its listener wants TLS: set kafka.tls = true, and \
                 kafka.tls_ca for an authority of your own",
            ),
        ),
        ClientError::WantsLogin { .. } => (
            ErrorKind::KafkaUnavailable,
            Some(
                "if the broker is up, its listener wants a log-in: set kafka.username and \
                 kafka.password, and kafka.sasl_mechanism",
            ),
        ),
        ClientError::Login { .. } => (ErrorKind::KafkaUnavailable, Some(LOGIN)),
        ClientError::Unsupported { .. } => {
            (ErrorKind::KafkaRefused, Some("factlib needs Kafka 0.11 or newer"))
        }
        ClientError::Broker { code, .. } => (kind(*code), remedy_of(*code)),
        _ => (ErrorKind::KafkaUnavailable, None),
    };
    let failed = Error::new(kind, format!("cannot reach Kafka at {brokers}")).caused_by(error);
    match remedy {
        Some(remedy) => failed.remedy(remedy),
        None => failed,
    }
}

/// Remedy for a broker's certificate that fails verification.
fn untrusted_remedy(problem: Problem, authorities: Option<&str>) -> String {
    problem.remedy().map_or_else(
        || match authorities {
            Some(path) => {
                format!("does {path} hold the authority that signed it? kafka.tls_ca names another")
            }
            None => "name the file of the authority that signed it with kafka.tls_ca".into(),
        },
        str::to_owned,
    )
}

/// Kind and remedy of a failed TLS connection.
fn tls_remedy(error: Option<&TlsError>, source: &io::Error) -> Option<(ErrorKind, &'static str)> {
    if is_own_certificate_refused(source) {
        return Some((
            ErrorKind::KafkaRefused,
            "the broker wants a certificate of an authority that it knows: set \
             kafka.tls_certificate and kafka.tls_key",
        ));
    }
    match error? {
        TlsError::Handshake { .. } => Some((
            ErrorKind::KafkaUnavailable,
            "the listener speaks no TLS: name the one that does in kafka.brokers, or set \
             kafka.tls = false",
        )),
        TlsError::Incompatible { .. } => Some((
            ErrorKind::KafkaUnavailable,
            "let the broker allow TLS 1.2 or 1.3 (ssl.enabled.protocols), and its default cipher \
             suites",
        )),
        TlsError::Name { .. } => {
            Some((ErrorKind::KafkaUnavailable, "correct kafka.tls_server_name, or kafka.brokers"))
        }
        // Files are read again at each try.
        TlsError::Key { .. } => Some((
            ErrorKind::KafkaUnavailable,
            "correct kafka.tls_key, its file, or kafka.tls_key_password",
        )),
        TlsError::Certificate { .. } => Some((
            ErrorKind::KafkaUnavailable,
            "correct kafka.tls_certificate, or the file that it names",
        )),
        TlsError::File { .. } => Some((
            ErrorKind::KafkaUnavailable,
            "correct the setting kafka.tls_… that names this file, or the file",
        )),
        _ => Some((ErrorKind::KafkaUnavailable, "correct kafka.tls_ca, or the file that it names")),
    }
}

/// True for answers that concern the login and not the request.
fn is_of_login(code: Code) -> bool {
    use Code::{
        IllegalSaslState, SaslAuthenticationFailed, SecurityDisabled, UnsupportedSaslMechanism,
    };
    matches!(
        code,
        SaslAuthenticationFailed | UnsupportedSaslMechanism | IllegalSaslState | SecurityDisabled
    )
}

fn kind(code: Code) -> ErrorKind {
    match code {
        // The record itself: sent again, it is refused again.
        Code::MessageTooLarge | Code::RecordListTooLarge => ErrorKind::RecordTooLarge,
        Code::InvalidRecord | Code::InvalidTimestamp => ErrorKind::RecordRefused,
        // The topic alone: asked for again, it is refused again.
        Code::InvalidTopicException
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::PolicyViolation => ErrorKind::TopicRefused,
        // The topic alone, until somebody gives a right, starts a broker or creates it.
        Code::TopicAuthorizationFailed
        | Code::InvalidReplicationFactor
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::ThrottlingQuotaExceeded => ErrorKind::TopicUnavailable,
        // No topic can be had, until somebody changes a setting or a right.
        Code::SaslAuthenticationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnsupportedSaslMechanism
        | Code::IllegalSaslState
        | Code::UnsupportedVersion
        | Code::SecurityDisabled => ErrorKind::KafkaRefused,
        // Everything else has to do with brokers that come and go.
        _ => ErrorKind::KafkaUnavailable,
    }
}

fn remedy_of(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::MessageTooLarge | Code::RecordListTooLarge => TOO_LARGE,
        Code::SaslAuthenticationFailed
        | Code::UnsupportedSaslMechanism
        | Code::IllegalSaslState
        | Code::SecurityDisabled => LOGIN,
        Code::TopicAuthorizationFailed => {
            "the user needs the ACLs Describe and Write on the topic, and Create where factlib creates it"
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopicId => {
            "create the topic, or let factlib do so with kafka.topics.create = true"
        }
        Code::InvalidReplicationFactor => {
            "the cluster has fewer brokers than kafka.topics.replication_factor"
        }
        Code::InvalidTopicException => {
            "to Kafka '.' and '_' are the same in a name: is there a topic that differs by these alone?"
        }
        Code::InvalidConfig => "correct kafka.topics.config",
        Code::PolicyViolation => {
            "the brokers' create.topic.policy forbids it: correct kafka.topics, or create the topic"
        }
        _ => return None,
    })
}

/// The code of a broker's answer that led to the error.
fn code_of(error: &Error) -> Option<Code> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(refusal.code);
        }
        cause = error.source();
    }
    None
}

/// True if the user lacks a right on the topic.
pub(crate) fn lacks_right(error: &Error) -> bool {
    code_of(error) == Some(Code::TopicAuthorizationFailed)
}

/// Turns a topic's error into one that stops the relay, for a topic that the relay can't do
/// without.
pub(crate) fn as_relay_error(error: Error) -> Error {
    match error.kind() {
        ErrorKind::TopicRefused => error.of_kind(ErrorKind::KafkaRefused),
        ErrorKind::TopicUnavailable if lacks_right(&error) => {
            error.of_kind(ErrorKind::KafkaRefused)
        }
        _ => error,
    }
}

/// Makes the error of a topic that the brokers do not take records for; none if the error concerns
/// the brokers, or passes by itself.
pub(crate) fn of_topic(topic: &str, error: &ClientError) -> Option<Error> {
    let ClientError::Broker { code, message, .. } = error else { return None };
    let what = format!("Kafka did not take a record for {topic}");
    let error = broker_error(what, *code, message.clone());
    let is_of_topic = matches!(error.kind(), ErrorKind::TopicRefused | ErrorKind::TopicUnavailable);
    is_of_topic.then_some(error)
}

/// True if the broker refuses a record for the time at which it was sent: the clock of this machine
/// or of the broker is wrong, and not the record.
pub(crate) fn is_of_clock(record: &Record, refusal: &Refusal) -> bool {
    refusal.code == Code::InvalidTimestamp && record.timestamp_ms.is_none()
}

/// Makes the error of a record that waits until the clocks agree.
pub(crate) fn of_clock(topic: &str, refusal: &Refusal) -> Error {
    let what = format!("Kafka did not take a record for {topic}");
    Error::new(ErrorKind::KafkaUnavailable, what)
        .caused_by(refusal.clone())
        .remedy("check the clocks of this machine and of the brokers")
}

/// Makes the error of a topic that could not be opened.
pub(crate) fn not_opened(topic: &str, error: ClientError) -> Error {
    of_topic(topic, &error).unwrap_or_else(|| {
        let what = format!("cannot open topic {topic}");
        Error::new(ErrorKind::KafkaUnavailable, what).caused_by(error)
    })
}

/// Makes the error of a record that the brokers will never take; `name` is the record's name in
/// errors.
pub(crate) fn refused(topic: &str, name: &str, record: &Record, refusal: &Refusal) -> Error {
    let what = format!("Kafka did not take the record of {name} for {topic}");
    match refusal.code {
        Code::MessageTooLarge | Code::RecordListTooLarge => {
            Error::new(ErrorKind::RecordTooLarge, what).remedy(TOO_LARGE)
        }
        Code::InvalidTimestamp if let Some(ms) = record.timestamp_ms => {
            let time = format!("its topic takes no record of the time {ms} ms");
            let time = Error::new(ErrorKind::RecordRefused, time).caused_by(refusal.clone());
            return Error::new(ErrorKind::RecordRefused, what).caused_by(time);
        }
        _ => Error::new(ErrorKind::RecordRefused, what),
    }
    .caused_by(refusal.clone())
}

/// Makes the error of a record for a partition that its topic does not have.
pub(crate) fn no_partition(topic: &str, name: &str, partition: i32) -> Error {
    let what = format!("Kafka did not take the record of {name} for {topic}");
    let why = format!("its topic has no partition {partition}");
    Error::new(ErrorKind::RecordRefused, what).caused_by(Error::new(ErrorKind::RecordRefused, why))
}

#[cfg(test)]
mod tests {
    use factlib_tls::rustls::{AlertDescription, Error as RustlsError};
    use std::{io, sync::Arc};

    use super::*;

    #[test]
    fn what_can_be_done_is_said() {
        for (code, remedy) in [
            (
                Code::MessageTooLarge,
                "raise max.message.bytes of the topic, or message.max.bytes of the broker",
            ),
            (
                Code::TopicAuthorizationFailed,
                "the user needs the ACLs Describe and Write on the topic, and Create where factlib \
                 creates it",
            ),
            (
                Code::UnknownTopicOrPartition,
                "create the topic, or let factlib do so with kafka.topics.create = true",
            ),
            (
                Code::InvalidReplicationFactor,
                "the cluster has fewer brokers than kafka.topics.replication_factor",
            ),
            (
                Code::InvalidTopicException,
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
            assert_eq!(broker_error("no", code, None).advice(), Some(remedy), "{code:?}");
        }
    }

    fn address() -> Arc<str> {
        "b:9092".into()
    }

    fn connection(brokers: &str, error: ClientError) -> Error {
        client_error(brokers, "cannot look up topic t", error)
    }

    #[test]
    fn a_connection_that_can_t_be_made_has_the_remedy_of_its_reason() {
        let source = || Arc::new(io::Error::other("Name or service not known"));
        let unresolved = || ClientError::Unresolved { address: address(), source: source() };
        let ours = connection("a:1,b:9092", unresolved());
        assert_eq!(ours.advice(), Some("correct kafka.brokers, or the DNS of this machine"));
        assert_eq!(
            ours.to_string(),
            "cannot reach Kafka at a:1,b:9092: cannot find the address of b:9092: Name or service \
             not known (correct kafka.brokers, or the DNS of this machine)"
        );
        let theirs = connection("a:1", unresolved());
        let remedy = "the brokers advertise an address that this machine can't resolve: correct \
                      advertised.listeners there, or the DNS of this machine";
        assert_eq!(theirs.advice(), Some(remedy));
        let source =
            io::Error::other(RustlsError::AlertReceived(AlertDescription::CertificateRequired));
        let error = ClientError::Connection { address: address(), source: Arc::new(source) };
        let error = connection("a:1", error);
        let remedy = "the broker wants a certificate of an authority that it knows: set \
                      kafka.tls_certificate and kafka.tls_key";
        assert_eq!((error.kind(), error.advice()), (ErrorKind::KafkaRefused, Some(remedy)));
        for (error, remedy) in [
            (ClientError::WantsTls { address: address() }, "kafka.tls = true"),
            (ClientError::HungUp { address: address() }, "wants TLS"),
            (ClientError::WantsLogin { address: address() }, "wants a log-in"),
        ] {
            let error = connection("a:1", error);
            assert!(error.is_transient());
            assert!(error.advice().expect("a remedy").contains(remedy), "{error}");
        }
        let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = connection("a:1", ClientError::Connection { address: address(), source });
        assert_eq!((error.kind(), error.advice()), (ErrorKind::KafkaUnavailable, None));
    }

    #[test]
    fn a_broker_s_certificate_that_is_not_trusted_is_named_with_its_flaw() {
        let untrusted = |problem, reason: &str, authorities: Option<&str>| {
            let (reason, authorities) = (reason.to_owned(), authorities.map(str::to_owned));
            let source = io::Error::other(TlsError::Untrusted { reason, problem, authorities });
            let source = Arc::new(source);
            connection("a:1", ClientError::Connection { address: address(), source }).to_string()
        };
        assert_eq!(
            untrusted(Problem::Expired, "it expired at noon", None),
            "the TLS certificate of Kafka at b:9092 can't be trusted: it expired at noon \
             (have it renewed on the server)"
        );
        assert!(
            untrusted(Problem::Authority, "no issuer", Some("/ca.crt"))
                .contains("does /ca.crt hold")
        );
        assert!(untrusted(Problem::Authority, "no issuer", None).contains("with kafka.tls_ca"));
    }

    #[test]
    fn what_is_about_one_topic_is_about_the_whole_where_all_rests_on_it() {
        use ErrorKind::{KafkaRefused, KafkaUnavailable, TopicRefused, TopicUnavailable};
        for (code, kind, whole) in [
            (Code::InvalidTopicException, TopicRefused, KafkaRefused),
            (Code::InvalidConfig, TopicRefused, KafkaRefused),
            (Code::TopicAuthorizationFailed, TopicUnavailable, KafkaRefused),
            (Code::InvalidReplicationFactor, TopicUnavailable, TopicUnavailable),
            (Code::UnknownTopicOrPartition, TopicUnavailable, TopicUnavailable),
            (Code::SaslAuthenticationFailed, KafkaRefused, KafkaRefused),
            (Code::BrokerNotAvailable, KafkaUnavailable, KafkaUnavailable),
        ] {
            let what = "cannot ask".to_owned();
            let error =
                client_error("a:1", "no", ClientError::Broker { what, code, message: None });
            assert_eq!(error.kind(), kind, "{code:?}");
            assert_eq!(as_relay_error(error).kind(), whole, "{code:?}");
        }
    }

    #[test]
    fn a_refused_record_says_what_its_topic_does_not_take() {
        let record = Record { timestamp_ms: Some(7), ..Record::default() };
        let text = |code| refused("t", "event 1", &record, &Refusal::new(code, None)).to_string();
        assert_eq!(
            text(Code::InvalidTimestamp),
            "Kafka did not take the record of event 1 for t: its topic takes no record of the time \
             7 ms: INVALID_TIMESTAMP"
        );
        assert!(text(Code::MessageTooLarge).contains("raise max.message.bytes"));
        let text = no_partition("t", "event 1", 9).to_string();
        assert!(text.ends_with("its topic has no partition 9"), "{text}");
    }
}
