//! Defines the metrics of the connections to Kafka's brokers, from the client's statistics.

use super::{Family, Kind, Value, labelled};
use crate::status::{BrokerStatus, KafkaStatus};

/// Kind, name and help of a metric, and its value for a broker.
type OfBroker = (Kind, &'static str, &'static str, fn(&BrokerStatus) -> Option<Value>);

const OF_BROKER: [OfBroker; 5] = [
    (
        Kind::Counter,
        "kafka_broker_send_errors",
        "Requests whose connection was lost before their answer",
        |broker| Some(broker.send_errors.into()),
    ),
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
    let of_broker = |(kind, name, help, value): OfBroker| {
        let brokers = kafka.into_iter().flat_map(|kafka| &kafka.brokers);
        let values =
            brokers.filter_map(|(broker, of)| Some(([("broker", broker.as_str())], value(of)?)));
        labelled(kind, name, help, values)
    };
    OF_BROKER.map(of_broker).into()
}
