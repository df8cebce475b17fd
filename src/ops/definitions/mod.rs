//! Defines all metrics, for `/metrics` and for the facade.
//!
//! A metric that the Go library has too has the same name here. Those of the process are for
//! `/metrics` only: an application has its own.

pub(super) mod fleet;
mod kafka;
mod lag;
mod pipeline;
pub(super) mod process;
mod waits;

use crate::status::{Observed, PipelineStatus};

/// Prefix of every name.
pub(super) const PREFIX: &str = "factlib";

/// All samples of one name, which differ by their labels.
pub(super) struct Family<'a> {
    /// Without [`PREFIX`] and, for a counter, without `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    /// Empty while no value is known; the family's name is exposed all the same.
    pub samples: Vec<Sample<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

pub(super) struct Sample<'a> {
    pub labels: Vec<Label<'a>>,
    pub value: Value,
}

/// Name and value.
pub(super) type Label<'a> = (&'static str, &'a str);

#[derive(Clone, Copy)]
pub(super) enum Value {
    Integer(u64),
    Float(f64),
}

/// Lists everything but histograms, with the status's values.
pub(super) fn families(status: &PipelineStatus) -> impl Iterator<Item = Family<'_>> {
    let lists = [
        pipeline::families(status),
        lag::families(status),
        waits::families(status),
        kafka::families(status.kafka.as_ref()),
    ];
    lists.into_iter().flatten()
}

#[cfg(feature = "metrics")]
pub(super) const HISTOGRAMS: [Observed; 3] =
    [Observed::Latency, Observed::BatchEvents, Observed::BatchBytes];

/// Name and help of a histogram. Its values are recorded as they happen, so a status has none.
pub(super) fn histogram(of: Observed) -> (&'static str, &'static str) {
    match of {
        Observed::Latency => (
            "kafka_produce_latency_seconds",
            "Time from reading a topic's part of a batch to Kafka's acknowledgement",
        ),
        Observed::BatchEvents => ("batch_events", "Events in a batch, as the router gets it"),
        Observed::BatchBytes => ("batch_bytes", "Bytes of the window that a batch holds"),
    }
}

fn counter(name: &'static str, help: &'static str, value: impl Into<Value>) -> Family<'static> {
    labelled(Kind::Counter, name, help, [([], value)])
}

fn gauge(name: &'static str, help: &'static str, value: impl Into<Value>) -> Family<'static> {
    optional_gauge(name, help, Some(value))
}

/// A gauge whose value may be unknown.
fn optional_gauge(
    name: &'static str,
    help: &'static str,
    value: Option<impl Into<Value>>,
) -> Family<'static> {
    labelled(Kind::Gauge, name, help, value.map(|value| ([], value)))
}

fn labelled<'a, const N: usize>(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    samples: impl IntoIterator<Item = ([Label<'a>; N], impl Into<Value>)>,
) -> Family<'a> {
    let samples = samples.into_iter();
    let samples =
        samples.map(|(labels, value)| Sample { labels: labels.into(), value: value.into() });
    Family { name, help, kind, samples: samples.collect() }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}
