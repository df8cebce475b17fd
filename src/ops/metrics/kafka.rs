//! What librdkafka says of itself and of its brokers.

use std::fmt;

use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{MetricType, gauge::ConstGauge},
};

use super::Metrics;
use crate::status::{BrokerStatus, KafkaStatus};

/// Name, help, and the value of a broker.
type OfBroker<T> = (&'static str, &'static str, fn(&BrokerStatus) -> T);

pub(super) fn encode(to: &mut Metrics<'_>, kafka: Option<&KafkaStatus>) -> fmt::Result {
    let help = "Records in the Kafka client's queues and on their way";
    to.known("kafka_queue_records", help, kafka.map(|kafka| kafka.queue_records))?;
    to.known("kafka_queue_bytes", "Their bytes", kafka.map(|kafka| kafka.queue_bytes))?;
    let brokers = || kafka.into_iter().flat_map(|kafka| &kafka.brokers);
    let counters: [OfBroker<u64>; 4] = [
        ("kafka_broker_send_errors", "Requests that could not be sent", |b| b.send_errors),
        ("kafka_broker_send_retries", "Requests that were sent again", |b| b.send_retries),
        ("kafka_broker_timeouts", "Requests not answered in time", |b| b.request_timeouts),
        ("kafka_broker_sent_bytes", "Bytes sent", |b| b.sent_bytes),
    ];
    for (name, help, value) in counters {
        let values = brokers().map(|(name, b)| (("broker", name.as_str()), value(b)));
        to.counters(name, help, values)?;
    }
    let gauges: [OfBroker<Option<f64>>; 4] = [
        ("kafka_broker_up", "1 while connected", |b| Some(f64::from(u8::from(b.connected)))),
        ("kafka_broker_requests_in_flight", "Requests that wait for their answers", |b| {
            u32::try_from(b.requests_in_flight).ok().map(f64::from)
        }),
        ("kafka_broker_rtt_seconds", "What an answer took, on average", |b| b.rtt_seconds),
        ("kafka_broker_rtt_p99_seconds", "The slowest of a hundred", |b| b.rtt_p99_seconds),
    ];
    for (name, help, value) in gauges {
        let mut family = to.family(name, help, MetricType::Gauge)?;
        for (name, broker) in brokers() {
            if let Some(value) = value(broker) {
                let labels = [("broker", name.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}
