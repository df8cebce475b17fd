//! Errors of a session of transactions as factlib's, with the remedy.

use std::sync::Arc;

use factlib_kafka::{Code, TransactionError};

use crate::{Error, ErrorKind, kafka::errors::broker_error};

/// The meaning of a fenced producer for the operator.
const FENCED: &str = "another instance has taken over this slot, or Kafka gave the transaction up \
                      after delivery.transaction_timeout";

/// The error of a session that failed at `what`; a transient one becomes an error of `kind`.
pub(super) fn of_session(kind: ErrorKind, what: String, error: TransactionError) -> Error {
    match error {
        TransactionError::Fenced(error) => {
            Error::new(ErrorKind::TransactionAborted, FENCED).caused_by(error)
        }
        // A broker that says so does not know yet who the coordinator has fenced.
        TransactionError::Abortable { error, .. }
            if error.code() == Some(Code::InvalidProducerEpoch) =>
        {
            Error::new(ErrorKind::TransactionAborted, FENCED).caused_by(error)
        }
        TransactionError::Refused(error) => refused(what, error),
        TransactionError::Abortable { error, .. } => Error::new(kind, what).caused_by(error),
        TransactionError::Ended => Error::new(ErrorKind::ActorFailed, what).caused_by(error),
        other => Error::new(kind, what).caused_by(other),
    }
}

fn refused(what: String, error: factlib_kafka::Error) -> Error {
    let is_too_old = matches!(error, factlib_kafka::Error::Unsupported { .. })
        || matches!(error.code(), Some(Code::UnsupportedVersion | Code::InvalidRequest));
    let remedy = match error.code() {
        _ if is_too_old => {
            "transactions need Kafka 2.5 or newer; or set delivery.mode = \"at-least-once\""
        }
        Some(Code::TransactionalIdAuthorizationFailed) => {
            "the user needs the ACLs Describe and Write on that transactional id"
        }
        Some(Code::InvalidTransactionTimeout) => {
            "lower delivery.transaction_timeout, or raise transaction.max.timeout.ms of the brokers"
        }
        _ => return Error::new(ErrorKind::KafkaRefused, what).caused_by(error),
    };
    Error::new(ErrorKind::KafkaRefused, what).caused_by(error).remedy(remedy)
}

/// Remedy for an earlier transaction that Kafka does not end. Its coordinator tries again once it
/// starts.
const NOT_ENDED: &str = "if this lasts, that broker can't write the end of the transaction to all its \
                         topics: its log says why; correct that, then restart it";

/// The error of something that brokers did not do in time.
pub(super) fn too_late(what: String, trouble: Option<factlib_kafka::Error>) -> Error {
    let error = Error::new(ErrorKind::KafkaUnavailable, what);
    match trouble {
        Some(trouble) if trouble.code() == Some(Code::ConcurrentTransactions) => {
            error.caused_by(trouble).remedy(NOT_ENDED)
        }
        Some(trouble) => error.caused_by(trouble),
        None => error.caused_by("no broker has answered yet"),
    }
}

/// The topic that the user may not write to, and the error of it, if that is the reason.
pub(super) fn denial(error: &TransactionError) -> Option<(Arc<str>, Error)> {
    let TransactionError::Abortable {
        error: factlib_kafka::Error::Broker { code: Code::TopicAuthorizationFailed, message, .. },
        topic: Some(topic),
    } = error
    else {
        return None;
    };
    let what = format!("the user may not write to topic {topic}");
    let denial = broker_error(what, Code::TopicAuthorizationFailed, message.clone());
    Some((Arc::clone(topic), denial))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(code: Code) -> factlib_kafka::Error {
        factlib_kafka::Error::Broker { what: "a request".into(), code, message: None }
    }

    fn of(error: TransactionError) -> Error {
        of_session(ErrorKind::KafkaUnavailable, "cannot begin".into(), error)
    }

    #[test]
    fn a_refusal_has_its_remedy_and_a_fenced_producer_its_meaning() {
        for (code, remedy) in [
            (Code::TransactionalIdAuthorizationFailed, Some("Describe and Write on that")),
            (Code::InvalidTransactionTimeout, Some("transaction.max.timeout.ms")),
            (Code::UnsupportedVersion, Some("Kafka 2.5")),
            (Code::ClusterAuthorizationFailed, None),
        ] {
            let error = of(TransactionError::Refused(broker(code)));
            assert_eq!(error.kind(), ErrorKind::KafkaRefused);
            assert_eq!(error.advice().is_some(), remedy.is_some(), "{error}");
            assert!(remedy.is_none_or(|remedy| error.to_string().contains(remedy)), "{error}");
        }
        let what = "supports InitProducerId up to version 1".to_owned();
        let old = factlib_kafka::Error::Unsupported { address: "a:1".into(), what };
        let error = of(TransactionError::Refused(old));
        assert_eq!(error.kind(), ErrorKind::KafkaRefused);
        assert!(error.to_string().contains("Kafka 2.5"), "{error}");
        let stale = broker(Code::InvalidProducerEpoch);
        for error in [
            TransactionError::Fenced(broker(Code::ProducerFenced)),
            TransactionError::Abortable { error: stale, topic: None },
        ] {
            let error = of(error);
            assert_eq!(error.kind(), ErrorKind::TransactionAborted);
            assert!(error.to_string().starts_with("another instance"), "{error}");
        }
        let again =
            TransactionError::Abortable { error: broker(Code::InvalidTxnState), topic: None };
        assert_eq!(of(again).kind(), ErrorKind::KafkaUnavailable);
    }

    #[test]
    fn a_late_answer_has_its_reason() {
        let late = |trouble| too_late("cannot begin".into(), trouble);
        let error = late(Some(broker(Code::ConcurrentTransactions)));
        assert!(error.to_string().contains("CONCURRENT_TRANSACTIONS"), "{error}");
        assert!(error.advice().is_some(), "{error}");
        assert!(late(None).to_string().contains("no broker has answered"), "{}", late(None));
    }

    #[test]
    fn a_topic_without_the_right_to_write_is_named() {
        let topic = || Some(Arc::from("orders"));
        let error = broker(Code::TopicAuthorizationFailed);
        let (named, denial) =
            denial(&TransactionError::Abortable { error, topic: topic() }).expect("a denial");
        assert_eq!((&*named, denial.kind()), ("orders", ErrorKind::TopicUnavailable));
        let error = broker(Code::TransactionAbortable);
        assert!(super::denial(&TransactionError::Abortable { error, topic: topic() }).is_none());
    }
}
