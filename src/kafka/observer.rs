//! The interface through which a Kafka client reports statistics, complaints and commits.

use std::{sync::Arc, time::Duration};

use factlib_kafka::DrainHold;
use slog::Logger;

use super::KafkaStatus;
use crate::Error;

/// Receives a client's reports. It is called on the client's threads, so it must not block.
///
/// Every method has a default that does nothing.
pub(crate) trait KafkaObserver: Send + Sync {
    /// The client reports an error; returns true if it is a new one.
    fn kafka_trouble(&self, _error: String) -> bool {
        true
    }

    /// New statistics of the client with this name.
    fn kafka_client(&self, _name: String, _status: KafkaStatus) {}

    /// The client with this name has ended.
    fn kafka_client_ended(&self, _name: &str) {}

    /// A broker says that the topic has this number of partitions.
    #[cfg(feature = "client-kafka")]
    fn partitions(&self, _topic: &str, _count: usize, _log: &Logger) {}

    /// Metadata, which may be outdated, says that an open topic has more partitions than before.
    /// Returns an error if the topic has to take no more records.
    fn partitions_grew(
        &self,
        _topic: &str,
        _from: usize,
        _to: usize,
        _log: &Logger,
    ) -> Option<Error> {
        None
    }

    /// Nothing that was mapped to the topic's former partitions is in flight. Later records are sent
    /// once `hold` is dropped. Called within the client's runtime.
    fn partitions_drained(&self, _topic: &str, _from: usize, _to: usize, _hold: DrainHold) {}

    /// A transaction was committed; the commit took this time.
    fn transaction_committed(&self, _took: Duration) {}
}

/// The observer of a client that nobody watches.
struct Unobserved;

impl KafkaObserver for Unobserved {}

/// The observer of a client that nobody watches.
pub(crate) fn unobserved() -> Arc<dyn KafkaObserver> {
    Arc::new(Unobserved)
}
