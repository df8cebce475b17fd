//! A [`Status`] as OpenMetrics text, which Prometheus reads.
//!
//! Names that the Go library has are the Go library's; the encoder adds the
//! `_total` of counters.

mod kafka;
mod lag;
mod waits;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::status::{PipelineState, Status};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a pipeline, now.
pub(super) fn encode(status: &Arc<Status>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("factlib");
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
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.snapshot();
        let mut to = Metrics(encoder);
        to.counter("events_consumed", "Events read from the WAL", status.events_read)?;
        let help = "Events that a route dropped or kafka.unrouted ignores";
        to.counter("events_filtered", help, status.events_filtered)?;
        let topics = || status.topics.iter();
        to.counters(
            "kafka_produce_success",
            "Events that Kafka acknowledged",
            topics().map(|(name, topic)| (("topic", name.as_str()), topic.events)),
        )?;
        to.counters(
            "kafka_produce_failure",
            "Failures of a topic, after each of which it was opened again",
            topics().map(|(name, topic)| (("topic", name.as_str()), topic.restarts)),
        )?;
        let help = "From the read of a topic's part of a batch to Kafka's acknowledgement";
        let mut latencies =
            to.family("kafka_produce_latency_seconds", help, MetricType::Histogram)?;
        for (name, latency) in self.0.latencies() {
            latency.encode(latencies.encode_family(&[("topic", &*name)])?)?;
        }
        to.counter(
            "wal_replication_errors",
            "Failures of the replication connection, or of making one",
            status.replication_errors,
        )?;
        to.counter(
            "retention_removed_rows",
            "Delivered rows that were removed for their age",
            status.retention_removed,
        )?;
        to.counter(
            "retention_errors",
            "Failures to remove such rows, after each of which it is tried again",
            status.retention_errors,
        )?;
        to.counters(
            "actor_restarts",
            "Failures of an actor, after each of which it was started again",
            status.restarts.iter().map(|(actor, count)| (("actor", *actor), *count)),
        )?;
        let up = u64::from(status.state == PipelineState::Running);
        let (received, saved) = (status.received_lsn.as_u64(), status.saved_lsn.as_u64());
        for (name, help, value) in [
            ("running", "1 while the pipeline reads and delivers", up),
            (
                "generation",
                "Lives of the reader: one more each time that it connects",
                status.generation,
            ),
            (
                "in_flight_bytes",
                "Bytes between the WAL and the acknowledgement",
                status.in_flight_bytes as u64,
            ),
            ("window_bytes", "The most that may be in flight", status.window_bytes as u64),
            ("wal_received_lsn_bytes", "End of the WAL that the server sent or reported", received),
            ("wal_saved_lsn_bytes", "Everything up to here is delivered and saved", saved),
            (
                "wal_confirmed_lsn_bytes",
                "Everything up to here PostgreSQL may forget",
                status.confirmed_lsn.as_u64(),
            ),
            (
                "wal_retained_bytes",
                "WAL that the server kept for the slot when it was last asked",
                status.retained_wal_bytes,
            ),
            (
                "retention_last_run_seconds",
                "When old rows were last looked for, Unix time; 0 for never",
                status.retention_last_run,
            ),
            (
                "wal_lag_bytes",
                "WAL received and not saved as delivered",
                received.saturating_sub(saved),
            ),
        ] {
            to.gauge(name, help, value)?;
        }
        lag::encode(&mut to, &status)?;
        waits::encode(&mut to, &self.0, &status)?;
        kafka::encode(&mut to, status.kafka.as_ref())
    }
}

struct Metrics<'a>(DescriptorEncoder<'a>);

impl Metrics<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        // Positions stay below 2^63.
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    /// A gauge that is there by name alone while its value is not known.
    fn known(&mut self, name: &str, help: &str, value: Option<u64>) -> fmt::Result {
        match value {
            Some(value) => self.gauge(name, help, value),
            None => self.family(name, help, MetricType::Gauge).map(|_| ()),
        }
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = ((&'a str, &'a str), u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (label, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[label])?)?;
        }
        Ok(())
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
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
    fn the_names_are_those_of_the_go_library() {
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
        status.batch(5, 9_000);
        status.dead_lettered();
        status.handler_retries(&topic, "not yet".into());
        status.not_saved("checkpointer", &Error::new(ErrorKind::CheckpointUnavailable, "away"));
        let broker = BrokerStatus {
            connected: true,
            rtt_seconds: Some(0.25),
            send_errors: 4,
            ..BrokerStatus::default()
        };
        let brokers = [("kafka:9092/1".to_owned(), broker)].into();
        let kafka = KafkaStatus { queue_records: 3, brokers, ..KafkaStatus::default() };
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
            r#"factlib_handler_retries_total{topic="shop.user"} 1"#,
            "factlib_checkpoint_errors_total 1",
            "factlib_wal_safe_bytes 700",
            "factlib_kafka_queue_records 3",
            r#"factlib_kafka_broker_up{broker="kafka:9092/1"} 1.0"#,
            r#"factlib_kafka_broker_rtt_seconds{broker="kafka:9092/1"} 0.25"#,
            r#"factlib_kafka_broker_send_errors_total{broker="kafka:9092/1"} 4"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        let blocked = r#"factlib_blocked_seconds_total{actor="checkpointer",by="store"} "#;
        assert!(text.lines().any(|line| line.starts_with(blocked)), "{text}");
    }
}
