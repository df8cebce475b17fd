//! Finds the reason of a failed transaction in librdkafka's log: the delivery reports of its
//! records do not contain the reason.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The failure of the present session's transaction, as far as librdkafka's log has it.
#[derive(Default)]
pub(crate) struct TransactionLog(Mutex<Failure>);

/// The reason of a failed transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    /// librdkafka's words; none if it has not failed.
    pub reason: Option<String>,
    /// The topic that the user may not write to, where that is the reason.
    pub denied: Option<String>,
}

/// End of librdkafka's log line about a topic that the user may not write to.
const DENIED: &str = "Broker: Topic authorization failed";

impl TransactionLog {
    /// Takes a line of the log in, of `facility`.
    pub fn line(&self, facility: &str, message: &str) {
        if !matches!(facility, "TXNERR" | "ADDPARTS") {
            return;
        }
        let mut failure = self.lock();
        if let Some(topic) = denied(message) {
            failure.denied.get_or_insert_with(|| topic.to_owned());
        }
        // The one that follows on a topic's is about the whole transaction.
        if facility == "TXNERR" {
            failure.reason.get_or_insert_with(|| without_thread(message).to_owned());
        }
    }

    pub fn failure(&self) -> Failure {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Failure> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The topic of a line that says that the user may not write to it: on adding it to the
/// transaction, or on writing to it later.
fn denied(message: &str) -> Option<&str> {
    let (_, adding) = message.split_once("Failed to add partition \"").unwrap_or_default();
    let (_, writing) = message.split_once("ProduceRequest for ").unwrap_or_default();
    let named = [adding.split_once("\" ["), writing.split_once(" [")];
    let (topic, rest) = named.into_iter().flatten().next()?;
    rest.contains(DENIED).then_some(topic)
}

/// A line without the name of librdkafka's thread before it.
fn without_thread(message: &str) -> &str {
    message
        .strip_prefix("[thrd:")
        .and_then(|rest| rest.split_once("]: "))
        .map_or(message, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_and_the_reason_of_a_failed_transaction_are_found() {
        let log = TransactionLog::default();
        log.line("FAIL", "[thrd:a:1/1]: a:1/1: Connect failed");
        assert_eq!(log.failure(), Failure::default());
        let other = "[thrd:main]: a:1/1: Failed to add partition \"shop.user\" [0] to transaction: \
                     Broker: Operation not attempted";
        let denied = "[thrd:main]: a:1/1: Failed to add partition \"shop.order\" [3] to \
                      transaction: Broker: Topic authorization failed";
        let failed = "[thrd:main]: Current transaction failed in state InTransaction: Failed to \
                      add partition(s) to transaction on broker a:1/1: Broker: Topic authorization \
                      failed (after 3 ms) (TOPIC_AUTHORIZATION_FAILED)";
        for (facility, line) in [("ADDPARTS", other), ("ADDPARTS", denied), ("TXNERR", failed)] {
            log.line(facility, line);
        }
        let failure = log.failure();
        assert_eq!(failure.denied.as_deref(), Some("shop.order"));
        let reason = failure.reason.expect("a reason");
        assert!(reason.starts_with("Current transaction failed in state"), "{reason}");
    }

    #[test]
    fn a_right_that_is_taken_away_later_is_found_as_well() {
        let log = TransactionLog::default();
        let line = "[thrd:main]: Current transaction failed in state InTransaction: ProduceRequest \
                    for shop.order [2] with 3 message(s) failed: Broker: Topic authorization failed \
                    (broker 1 PID{Id:1,Epoch:0}, base seq 0): current transaction must be aborted \
                    (TOPIC_AUTHORIZATION_FAILED)";
        log.line("TXNERR", line);
        assert_eq!(log.failure().denied.as_deref(), Some("shop.order"));
        let log = TransactionLog::default();
        log.line("TXNERR", &line.replace("Topic authorization failed", "Message size too large"));
        assert_eq!(log.failure().denied, None);
    }
}
