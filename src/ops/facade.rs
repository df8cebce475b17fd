//! Writes the metrics to a recorder of the crate `metrics`. Each has the label `slot`, which
//! distinguishes the pipelines of a process.
//!
//! Counters and gauges are written once a second and at the end, histogram values as they are
//! observed. A recorder that is installed later gets all metrics from then on.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Key, KeyName, Label as Tag, Level, Metadata, Recorder};

use super::definitions::{
    Family, HISTOGRAMS, Kind, Label, PREFIX, Sample, Value, families, histogram,
};
use crate::status::{PipelineStatus, Status};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Writes a pipeline's metrics to a recorder, in addition to `/metrics`.
#[derive(Clone, Default)]
pub(crate) struct Facade {
    /// None for the process's global recorder.
    recorder: Option<Arc<dyn Recorder + Send + Sync>>,
    slot: Arc<str>,
    /// Gauges that the last write had.
    gauges: Arc<Mutex<Vec<Key>>>,
}

impl fmt::Debug for Facade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facade").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl Facade {
    pub fn to(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Facade { recorder: Some(recorder), ..Facade::default() }
    }

    /// Describes the metrics to the recorder, and records histogram values from now on.
    pub fn follow(&mut self, slot: &str, status: &Status) {
        self.slot = slot.into();
        self.with_recorder(|recorder| {
            for Family { name, help, kind, .. } in families(&status.snapshot()) {
                match kind {
                    Kind::Counter => {
                        recorder.describe_counter(counter_name(name), None, help.into())
                    }
                    Kind::Gauge => recorder.describe_gauge(full_name(name), None, help.into()),
                }
            }
            for (name, help) in HISTOGRAMS.map(histogram) {
                recorder.describe_histogram(full_name(name), None, help.into());
            }
        });
        let facade = self.clone();
        status.on_observed(move |what, topic, value| {
            let (name, _) = histogram(what);
            let key = facade.key(full_name(name), topic.map(|topic| ("topic", topic)));
            facade.with_recorder(|recorder| {
                recorder.register_histogram(&key, &METADATA).record(value)
            });
        });
    }

    /// Writes all counters and gauges. A gauge without a value any more becomes NaN, because the crate
    /// can't remove one.
    pub fn publish(&self, status: &PipelineStatus) {
        self.with_recorder(|recorder| {
            let mut gauges = Vec::new();
            for Family { name, kind, samples, .. } in families(status) {
                for Sample { labels, value } in samples {
                    match kind {
                        Kind::Counter => {
                            let key = self.key(counter_name(name), labels);
                            recorder.register_counter(&key, &METADATA).absolute(as_integer(value));
                        }
                        Kind::Gauge => {
                            let key = self.key(full_name(name), labels);
                            recorder.register_gauge(&key, &METADATA).set(as_float(value));
                            gauges.push(key);
                        }
                    }
                }
            }
            for key in self.gone(gauges) {
                recorder.register_gauge(&key, &METADATA).set(f64::NAN);
            }
        });
    }

    /// Returns the gauges that had a value before and have none now.
    fn gone(&self, now: Vec<Key>) -> Vec<Key> {
        let mut last = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = mem::replace(&mut *last, now);
        gone.retain(|key| !last.contains(key));
        gone
    }

    fn with_recorder(&self, write: impl FnOnce(&dyn Recorder)) {
        match &self.recorder {
            Some(recorder) => write(&**recorder),
            None => metrics::with_recorder(|recorder| write(recorder)),
        }
    }

    fn key<'a>(&self, name: KeyName, labels: impl IntoIterator<Item = Label<'a>>) -> Key {
        let mut tags = vec![Tag::new("slot", Arc::clone(&self.slot))];
        tags.extend(labels.into_iter().map(|(name, value)| Tag::new(name, value.to_owned())));
        Key::from_parts(name, tags)
    }
}

/// Adds the prefix, as in `/metrics`.
fn full_name(name: &str) -> KeyName {
    format!("{PREFIX}_{name}").into()
}

fn counter_name(name: &str) -> KeyName {
    format!("{PREFIX}_{name}_total").into()
}

/// Converts to an integer, as the crate's counters are; fractions of a second are cut off.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Not negative.
fn as_integer(value: Value) -> u64 {
    match value {
        Value::Integer(value) => value,
        Value::Float(value) => value as u64,
    }
}

#[allow(clippy::cast_precision_loss)] // Positions stay below 2^52 for long.
fn as_float(value: Value) -> f64 {
    match value {
        Value::Integer(value) => value as f64,
        Value::Float(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;
    use crate::{
        Error, ErrorKind,
        messages::ByteWindow,
        ops::metrics::{Format, Scrape, encode},
        status::{BrokerStatus, KafkaStatus},
    };

    fn followed() -> (Arc<Status>, Facade, Snapshotter) {
        let status = Arc::new(Status::new(ByteWindow::new(1_000)));
        let recorder = Arc::new(DebuggingRecorder::new());
        let snapshotter = recorder.snapshotter();
        let mut facade = Facade::to(recorder);
        facade.follow("shop", &status);
        (status, facade, snapshotter)
    }

    #[test]
    fn a_recorder_gets_every_metric_of_the_page_with_the_slot() {
        let (status, facade, snapshotter) = followed();
        status.batch(5, 900);
        status.delivered(&"shop.user".into(), 3, Duration::from_millis(4));
        status.handler_retries(&"shop.user".into(), "not yet".into(), true);
        status.transaction_committed(Duration::from_millis(4));
        let error = Error::new(ErrorKind::CheckpointUnavailable, "away");
        status.actor_failed("router", &error);
        status.save_failed("checkpointer", &error);
        let broker = BrokerStatus { rtt_seconds: Some(0.25), ..BrokerStatus::default() };
        let brokers = [("kafka:9092/1".to_owned(), broker)].into();
        status.kafka_client("producer".into(), KafkaStatus { brokers });
        facade.publish(&status.snapshot());

        let mut published = BTreeSet::new();
        for (key, _, help, _) in snapshotter.snapshot().into_vec() {
            let key = key.key();
            assert!(key.labels().any(|label| (label.key(), label.value()) == ("slot", "shop")));
            assert!(help.is_some_and(|help| !help.is_empty()), "{key} is not described");
            published.insert(key.name().to_owned());
        }
        let page = encode(Scrape::of_one(&status), Format::OpenMetrics).expect("encoded");
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.split(['{', ' ']).next());
        let of_histogram = ["_bucket", "_sum", "_count"];
        let names = names.map(|name| {
            let cut = of_histogram.iter().find_map(|end| name.strip_suffix(end));
            cut.unwrap_or(name).to_owned()
        });
        // Those of the process are an application's own matter.
        let names = names.filter(|name| name.starts_with("factlib_"));
        assert_eq!(published, names.collect());
    }

    #[test]
    fn a_gauge_without_a_value_any_more_is_nan() {
        let (status, facade, snapshotter) = followed();
        let is_up = || {
            let all = snapshotter.snapshot().into_vec();
            let mut named =
                all.iter().filter(|(key, ..)| key.key().name() == "factlib_kafka_broker_up");
            match named.next() {
                Some((.., DebugValue::Gauge(value))) => Some(value.into_inner()),
                _ => None,
            }
        };
        facade.publish(&status.snapshot());
        assert_eq!(is_up(), None);
        let broker = BrokerStatus { connected: true, ..BrokerStatus::default() };
        let reported = KafkaStatus { brokers: [("kafka:9092/1".to_owned(), broker)].into() };
        status.kafka_client("producer".into(), reported);
        facade.publish(&status.snapshot());
        assert_eq!(is_up(), Some(1.0));
        status.kafka_client_ended("producer");
        facade.publish(&status.snapshot());
        assert!(is_up().is_some_and(f64::is_nan));
    }
}
