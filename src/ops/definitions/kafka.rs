//! Defines the metrics of the Kafka client and its brokers, from the client's statistics.

use super::{Family, Kind, Value, labelled, optional_gauge};
use crate::status::{BrokerStatus, KafkaStatus};

/// Kind, name and help of a metric, and its value for a broker.
type OfBroker = (Kind, &'static str, &'static str, fn(&BrokerStatus) -> Option<Value>);

const OF_BROKER: [OfBroker; 7] = [
    (Kind::Counter, "kafka_broker_send_errors", "Requests that failed to be sent", |broker| {
        Some(broker.send_errors.into())
    }),
    (Kind::Counter, "kafka_broker_send_retries", "Requests that were sent again", |broker| {
        Some(broker.send_retries.into())
    }),
    (Kind::Counter, "kafka_broker_timeouts", "Requests not answered in time", |broker| {
        Some(broker.request_timeouts.into())
    }),
    (Kind::Counter, "kafka_broker_sent_bytes", "Bytes sent", |broker| {
        Some(broker.sent_bytes.into())
    }),
    (Kind::Gauge, "kafka_broker_up", "1 while connected", |broker| {
        Some(u64::from(broker.connected).into())
    }),
    (
        Kind::Gauge,
        "kafka_broker_requests_in_flight",
        "Requests that await their answers",
        |broker| Some(broker.requests_in_flight.into()),
    ),
    (Kind::Gauge, "kafka_broker_rtt_mean_seconds", "Mean time to an answer", |broker| {
        broker.rtt_seconds.map(Value::Float)
    }),
];

pub(super) fn families(kafka: Option<&KafkaStatus>) -> Vec<Family<'_>> {
    let brokers = || kafka.into_iter().flat_map(|kafka| &kafka.brokers);
    let mut families = vec![
        optional_gauge(
            "kafka_queue_records",
            "Records in the Kafka client's queues and in flight",
            kafka.map(|kafka| kafka.queue_records),
        ),
        optional_gauge(
            "kafka_queue_bytes",
            "Bytes of these records",
            kafka.map(|kafka| kafka.queue_bytes),
        ),
    ];
    families.extend(OF_BROKER.map(|(kind, name, help, value)| {
        let values =
            brokers().filter_map(|(broker, of)| Some(([("broker", broker.as_str())], value(of)?)));
        labelled(kind, name, help, values)
    }));
    families.push(labelled(
        Kind::Gauge,
        "kafka_broker_rtt_seconds",
        "Time to an answer, by quantile",
        brokers().filter_map(|(broker, of)| {
            Some(([("broker", broker.as_str()), ("quantile", "0.99")], of.rtt_p99_seconds?))
        }),
    ));
    families
}
