//! Statistics of the Kafka clients and of their connections to brokers.

use std::collections::BTreeMap;

use serde::Serialize;

/// The latest statistics of all clients of the pipeline together, every
/// `kafka.statistics_interval`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KafkaStatus {
    /// Records queued or in flight.
    pub queue_records: u64,
    /// Bytes of those records.
    pub queue_bytes: u64,
    /// Connections by broker name, `host:port/id`.
    pub brokers: BTreeMap<String, BrokerStatus>,
}

/// The connection to a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// The broker is connected and has accepted our login.
    pub connected: bool,
    /// Requests that wait to be sent.
    pub waiting_requests: u64,
    /// Requests that wait for their answers.
    pub requests_in_flight: u64,
    /// Recent average time to an answer, in seconds; none if there was no request.
    pub rtt_seconds: Option<f64>,
    /// Recent 99th percentile of the time to an answer, in seconds.
    pub rtt_p99_seconds: Option<f64>,
    /// Requests that could not be sent.
    pub send_errors: u64,
    /// Requests that were sent again.
    pub send_retries: u64,
    /// Requests that were not answered in time.
    pub request_timeouts: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

impl KafkaStatus {
    /// All of them as one: sums, and of the times the longest.
    pub(crate) fn sum<'a>(clients: impl Iterator<Item = &'a KafkaStatus>) -> Self {
        clients.fold(KafkaStatus::default(), |mut sum, client| {
            sum.queue_records += client.queue_records;
            sum.queue_bytes += client.queue_bytes;
            for (name, broker) in &client.brokers {
                sum.brokers.entry(name.clone()).or_default().add(broker);
            }
            sum
        })
    }
}

impl BrokerStatus {
    fn add(&mut self, other: &BrokerStatus) {
        let longest = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        *self = BrokerStatus {
            connected: self.connected || other.connected,
            waiting_requests: self.waiting_requests + other.waiting_requests,
            requests_in_flight: self.requests_in_flight + other.requests_in_flight,
            rtt_seconds: longest(self.rtt_seconds, other.rtt_seconds),
            rtt_p99_seconds: longest(self.rtt_p99_seconds, other.rtt_p99_seconds),
            send_errors: self.send_errors + other.send_errors,
            send_retries: self.send_retries + other.send_retries,
            request_timeouts: self.request_timeouts + other.request_timeouts,
            sent_bytes: self.sent_bytes + other.sent_bytes,
        };
    }
}
