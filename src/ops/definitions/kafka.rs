//! What librdkafka says of itself and of its brokers.

use super::{Family, Kind, Value, known, labelled};
use crate::status::{BrokerStatus, KafkaStatus};

/// Kind, name, help, and the value of a broker.
type OfBroker = (Kind, &'static str, &'static str, fn(&BrokerStatus) -> Option<Value>);

const OF_BROKER: [OfBroker; 8] = [
    (Kind::Counter, "kafka_broker_send_errors", "Requests that could not be sent", |broker| {
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
        "Requests that wait for their answers",
        |broker| Some(broker.requests_in_flight.into()),
    ),
    (Kind::Gauge, "kafka_broker_rtt_seconds", "What an answer took, on average", |broker| {
        broker.rtt_seconds.map(Value::Real)
    }),
    (Kind::Gauge, "kafka_broker_rtt_p99_seconds", "The slowest of a hundred", |broker| {
        broker.rtt_p99_seconds.map(Value::Real)
    }),
];

pub(super) fn families(kafka: Option<&KafkaStatus>) -> Vec<Family<'_>> {
    let brokers = || kafka.into_iter().flat_map(|kafka| &kafka.brokers);
    let mut families = vec![
        known(
            "kafka_queue_records",
            "Records in the Kafka client's queues and on their way",
            kafka.map(|kafka| kafka.queue_records),
        ),
        known("kafka_queue_bytes", "Their bytes", kafka.map(|kafka| kafka.queue_bytes)),
    ];
    families.extend(OF_BROKER.map(|(kind, name, help, value)| {
        let values =
            brokers().filter_map(|(broker, of)| Some(([("broker", broker.as_str())], value(of)?)));
        labelled(kind, name, help, values)
    }));
    families
}
