//! Encodes a [`Status`] as OpenMetrics text, which Prometheus reads. The encoder appends `_total` to
//! the names of counters.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::definitions::{Family, Kind, PREFIX, Value, families, histogram};
use crate::status::{Observed, Status};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Encodes the present values of all metrics.
pub(super) fn encode(status: &Arc<Status>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape(Arc::clone(status))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Scrape(Arc<Status>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in families(&self.0.snapshot()) {
            encode_family(family, &mut encoder)?;
        }
        let mut latencies = histogram_of(Observed::Latency, &mut encoder)?;
        for (topic, latency) in self.0.latencies() {
            latency.encode(latencies.encode_family(&[("topic", &*topic)])?)?;
        }
        let (events, bytes) = self.0.batches();
        events.encode(histogram_of(Observed::BatchEvents, &mut encoder)?)?;
        bytes.encode(histogram_of(Observed::BatchBytes, &mut encoder)?)
    }
}

fn histogram_of<'s>(
    what: Observed,
    encoder: &'s mut DescriptorEncoder<'_>,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    let (name, help) = histogram(what);
    encoder.encode_descriptor(name, help, None, MetricType::Histogram)
}

fn encode_family(family: Family<'_>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Family { name, help, kind, samples } = family;
    let kind_name = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut family = encoder.encode_descriptor(name, help, None, kind_name)?;
    for sample in samples {
        if sample.labels.is_empty() {
            return encode_value(kind, sample.value, family);
        }
        encode_value(kind, sample.value, family.encode_family(&sample.labels)?)?;
    }
    Ok(())
}

fn encode_value(kind: Kind, value: Value, to: MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Integer(value)) => ConstCounter::new(value).encode(to),
        (Kind::Counter, Value::Float(value)) => ConstCounter::new(value).encode(to),
        (Kind::Gauge, Value::Integer(value)) => ConstGauge::new(value).encode(to),
        (Kind::Gauge, Value::Float(value)) => ConstGauge::new(value).encode(to),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Error, ErrorKind, Lsn,
        messages::ByteWindow,
        postgres::retention::Retention,
        status::{BrokerStatus, KafkaStatus},
    };

    #[test]
    fn names_and_values_are_encoded() {
        let status = Arc::new(Status::new(ByteWindow::new(1_000)));
        let topic: Arc<str> = "shop.user".into();
        status.read(5, 2);
        status.waits(&topic, 3);
        status.delivered(&topic, 3, Duration::from_millis(4));
        status.topic_failed(&topic, &Error::new(ErrorKind::KafkaUnavailable, "away"));
        status.actor_failed("router", &Error::new(ErrorKind::ActorFailed, "it panicked"));
        status.replication_failed();
        status.received(Lsn::new(700));
        let (restart, wal_end) = (Lsn::new(100), Lsn::new(1_000));
        let safe_wal_size = Some(700);
        let retained = Retention { restart, wal_end, safe_wal_size, ..Retention::default() };
        status.retained_wal(retained, None);
        status.saved(Lsn::new(200));
        status.swept(7, 1);
        status.watch_tables(["app.o".to_owned()].into_iter());
        status.batch(5, 9_000);
        status.dead_lettered();
        status.transaction_committed(Duration::from_millis(250));
        status.handler_retries(&topic, "not yet".into(), true);
        status.save_failed("checkpointer", &Error::new(ErrorKind::CheckpointUnavailable, "away"));
        let broker = BrokerStatus {
            connected: true,
            rtt_seconds: Some(0.25),
            send_errors: 4,
            ..BrokerStatus::default()
        };
        let brokers = [("kafka:9092/1".to_owned(), broker)].into();
        let kafka = KafkaStatus { brokers };
        status.kafka_client("producer-1".into(), kafka);
        let text = encode(&status).expect("encoded");
        for line in [
            "factlib_events_consumed_total 5",
            "factlib_events_filtered_total 2",
            r#"factlib_kafka_produce_success_total{topic="shop.user"} 3"#,
            r#"factlib_kafka_produce_failure_total{topic="shop.user"} 1"#,
            r#"factlib_kafka_produce_latency_seconds_bucket{le="0.0025",topic="shop.user"} 0"#,
            r#"factlib_kafka_produce_latency_seconds_bucket{le="0.005",topic="shop.user"} 1"#,
            r#"factlib_kafka_produce_latency_seconds_count{topic="shop.user"} 1"#,
            "factlib_wal_replication_errors_total 1",
            r#"factlib_actor_restarts_total{actor="router"} 1"#,
            "factlib_retention_removed_rows_total 7",
            "factlib_retention_errors_total 1",
            r#"factlib_publication_problems{table="app.o"} 0"#,
            r#"factlib_unpublished_ranges_total{table="app.o"} 0"#,
            "factlib_running 0",
            "factlib_window_bytes 1000",
            "factlib_wal_saved_lsn_bytes 200",
            "factlib_wal_retained_bytes 900",
            "factlib_wal_lag_bytes 500",
            "factlib_lag_bytes 800",
            "factlib_lag_events 0",
            "factlib_batch_events_sum 5.0",
            r#"factlib_batch_bytes_bucket{le="4096.0"} 0"#,
            r#"factlib_batch_bytes_bucket{le="16384.0"} 1"#,
            "factlib_dead_letters_total 1",
            "factlib_transactions_total 1",
            "factlib_transaction_commit_seconds 0.25",
            r#"factlib_handler_retries_total{topic="shop.user"} 1"#,
            "factlib_checkpoint_errors_total 1",
            "factlib_wal_safe_bytes 700",
            r#"factlib_kafka_broker_up{broker="kafka:9092/1"} 1"#,
            r#"factlib_kafka_broker_rtt_mean_seconds{broker="kafka:9092/1"} 0.25"#,
            r#"factlib_kafka_broker_send_errors_total{broker="kafka:9092/1"} 4"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        let blocked = r#"factlib_blocked_seconds_total{actor="checkpointer",by="store"} "#;
        assert!(text.lines().any(|line| line.starts_with(blocked)), "{text}");
    }
}
