//! Encodes a [`Status`] as text: OpenMetrics for scrapers that ask for it, as Prometheus does, and
//! Prometheus's own older format for all others, such as `curl` and `promtool check metrics`.
//!
//! The encoder writes OpenMetrics, in which `_total` belongs to a counter's sample and not to the name
//! of its family. The older format is made from that.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use super::definitions::{Family, Kind, Label, PREFIX, Value, families, fleet, histogram, process};
use super::group::GroupStatus;
use crate::status::{Observed, PipelineStatus, Status};

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// Returns the format for a request with this header `Accept`.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Format::OpenMetrics,
            _ => Format::Prometheus,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Encodes the present values of all metrics.
pub(super) fn encode(scrape: Scrape, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    text::encode_registry(&mut text, &registry)?;
    // Their names have no prefix.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessScrape));
    text::encode(&mut text, &registry)?;
    match format {
        Format::OpenMetrics => Ok(text),
        Format::Prometheus => prometheus_text(&text),
    }
}

/// Rewrites OpenMetrics text into Prometheus's format, where a counter's family has the name of its
/// samples, and nothing marks the end.
fn prometheus_text(openmetrics: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The next line has the type, on which the name depends.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            if let Some((_, help)) = help.take() {
                writeln!(text, "# HELP {name} {help}")?;
            }
            writeln!(text, "# TYPE {name} {kind}")?;
        } else if !line.starts_with('#') {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

/// Reads the metrics of the process.
#[derive(Debug)]
struct ProcessScrape;

impl Collector for ProcessScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        process::families().into_iter().try_for_each(|family| encode_family(family, &mut encoder))
    }
}

/// Reads the metrics of one pipeline, or of a fleet.
pub(super) struct Scrape {
    /// Each with its name if it is one of a fleet.
    pipelines: Vec<(Option<String>, Arc<Status>)>,
    /// For a fleet: each pipeline's name, and false if an error ended it.
    up: Vec<(String, bool)>,
    /// None if the pipelines are not shared with other instances.
    group: Option<GroupStatus>,
}

impl Scrape {
    pub fn of_one(status: &Arc<Status>) -> Self {
        Scrape { pipelines: vec![(None, Arc::clone(status))], up: Vec::new(), group: None }
    }

    pub fn of_fleet(
        pipelines: Vec<(Option<String>, Arc<Status>)>,
        up: Vec<(String, bool)>,
        group: Option<GroupStatus>,
    ) -> Self {
        Scrape { pipelines, up, group }
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("up", &self.up).finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshots: Vec<_> = self
            .pipelines
            .iter()
            .map(|(name, status)| (name.as_deref(), status.snapshot()))
            .collect();
        for family in of_all(&snapshots) {
            encode_family(family, &mut encoder)?;
        }
        if !self.up.is_empty() {
            encode_family(fleet::pipeline_up(&self.up), &mut encoder)?;
        }
        for family in self.group.iter().flat_map(fleet::group) {
            encode_family(family, &mut encoder)?;
        }
        let mut latencies = histogram_of(Observed::Latency, &mut encoder)?;
        for (name, status) in &self.pipelines {
            for (topic, latency) in status.latencies() {
                let labels: Vec<_> = named(name.as_deref()).chain([("topic", &*topic)]).collect();
                latency.encode(latencies.encode_family(&labels)?)?;
            }
        }
        self.encode_batches(Observed::BatchEvents, |(events, _)| events, &mut encoder)?;
        self.encode_batches(Observed::BatchBytes, |(_, bytes)| bytes, &mut encoder)
    }
}

impl Scrape {
    fn encode_batches(
        &self,
        what: Observed,
        of: impl Fn((Histogram, Histogram)) -> Histogram,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let mut histogram = histogram_of(what, encoder)?;
        for (name, status) in &self.pipelines {
            let values = of(status.batches());
            match name {
                Some(name) => {
                    values.encode(histogram.encode_family(&[("pipeline", name.as_str())])?)?;
                }
                // The only one.
                None => return values.encode(histogram),
            }
        }
        Ok(())
    }
}

/// The label of a pipeline that is one of several.
fn named(pipeline: Option<&str>) -> impl Iterator<Item = Label<'_>> {
    pipeline.into_iter().map(|name| ("pipeline", name))
}

/// Lists each family once, with the samples of all pipelines.
fn of_all<'a>(snapshots: &'a [(Option<&'a str>, PipelineStatus)]) -> Vec<Family<'a>> {
    let mut all: Vec<Family<'a>> = Vec::new();
    for (name, status) in snapshots {
        for mut family in families(status) {
            for sample in &mut family.samples {
                sample.labels.splice(0..0, named(*name));
            }
            match all.iter_mut().find(|other| other.name == family.name) {
                Some(other) => other.samples.append(&mut family.samples),
                None => all.push(family),
            }
        }
    }
    all
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
        let text = encode(Scrape::of_one(&status), Format::OpenMetrics).expect("encoded");
        assert!(text.ends_with("# EOF\n"), "{text}");
        for line in [
            concat!(r#"factlib_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
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
            "factlib_held_events 0",
            "factlib_held_aggregates 0",
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

    #[test]
    fn the_older_format_names_a_counter_as_its_samples_are_named() {
        let openmetrics = "# HELP a_b Events, \"all\".\n# TYPE a_b counter\n# UNIT a_b b\n\
                           a_b_total{x=\"# EOF\"} 1\n# HELP c Size.\n# TYPE c gauge\nc 2\n# EOF\n";
        let expected = "# HELP a_b_total Events, \"all\".\n# TYPE a_b_total counter\n\
                        a_b_total{x=\"# EOF\"} 1\n# HELP c Size.\n# TYPE c gauge\nc 2\n";
        assert_eq!(prometheus_text(openmetrics).expect("text"), expected);
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_has_memory_time_and_files() {
        let status = Arc::new(Status::new(ByteWindow::new(1_000)));
        let text = encode(Scrape::of_one(&status), Format::Prometheus).expect("encoded");
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        let now = crate::clock::now_ms() as f64 / 1000.0;
        assert!((now - 86_400.0..now + 2.0).contains(&value("process_start_time_seconds")));
    }
}
