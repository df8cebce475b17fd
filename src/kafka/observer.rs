//! What a Kafka client reports to whoever runs it.

use std::{sync::Arc, time::Duration};

use slog::Logger;

use super::KafkaStatus;

/// Receives a client's reports, on threads of the client's: it must not block.
///
/// Every method has a default that does nothing.
pub(crate) trait KafkaObserver: Send + Sync {
    /// The client complains; true where that is news.
    fn kafka_trouble(&self, _error: String) -> bool {
        true
    }

    /// The statistics of the client of this name.
    fn kafka_client(&self, _name: String, _status: KafkaStatus) {}

    /// The client of this name has ended.
    fn kafka_client_ended(&self, _name: &str) {}

    /// The topic has this number of partitions, as a broker says.
    fn partitions(&self, _topic: &str, _count: usize, _log: &Logger) {}

    /// The topic has this number of partitions, by metadata that may be old.
    fn partitions_grew(&self, _topic: &str, _count: usize, _log: &Logger) {}

    /// A transaction was committed, in this time.
    fn transaction_committed(&self, _took: Duration) {}
}

/// The observer of a client that nobody watches.
struct Unobserved;

impl KafkaObserver for Unobserved {}

/// The observer of a client that nobody watches.
pub(crate) fn unobserved() -> Arc<dyn KafkaObserver> {
    Arc::new(Unobserved)
}
