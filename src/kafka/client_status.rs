//! Statistics of the Kafka clients and of their connections to brokers.

use std::collections::BTreeMap;

use serde::Serialize;

/// The latest statistics of all clients of the pipeline together, every
/// `kafka.statistics_interval`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KafkaStatus {
    /// Connections by broker name, `host:port/id`.
    pub brokers: BTreeMap<String, BrokerStatus>,
}

/// The connection to a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// The broker is connected and has accepted our login.
    pub connected: bool,
    /// Requests that wait for their answers.
    pub requests_in_flight: u64,
    /// Moving average of the time to an answer, in seconds; none before the first answer.
    pub rtt_seconds: Option<f64>,
    /// Requests whose connection was lost before their answer.
    pub send_errors: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

impl KafkaStatus {
    /// All of them as one: sums, and of the times the longest.
    pub(crate) fn sum<'a>(clients: impl Iterator<Item = &'a KafkaStatus>) -> Self {
        clients.fold(KafkaStatus::default(), |mut sum, client| {
            for (name, broker) in &client.brokers {
                sum.brokers.entry(name.clone()).or_default().add(broker);
            }
            sum
        })
    }
}

impl BrokerStatus {
    /// Adds the time of an answer to the moving average, with a weight of an eighth.
    pub(super) fn answered_after(&mut self, seconds: f64) {
        let average = self.rtt_seconds.map_or(seconds, |before| before + (seconds - before) / 8.0);
        self.rtt_seconds = Some(average);
    }

    fn add(&mut self, other: &BrokerStatus) {
        let longest = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        *self = BrokerStatus {
            connected: self.connected || other.connected,
            requests_in_flight: self.requests_in_flight + other.requests_in_flight,
            rtt_seconds: longest(self.rtt_seconds, other.rtt_seconds),
            send_errors: self.send_errors + other.send_errors,
            sent_bytes: self.sent_bytes + other.sent_bytes,
        };
    }
}
