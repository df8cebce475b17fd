//! Which metrics there are: the one list behind `/metrics` and the facade.
//!
//! Names that the Go library has are the Go library's.

mod kafka;
mod lag;
mod pipeline;
mod waits;

use crate::status::{Observed, PipelineStatus};

/// What every name begins with.
pub(super) const PREFIX: &str = "factlib";

/// A metric, or those of one name, which differ by their labels.
pub(super) struct Family<'a> {
    /// Without [`PREFIX`] and, of a counter, without `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    /// None while nothing is known: then the family is there by name alone.
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
    Whole(u64),
    Real(f64),
}

/// Everything but histograms, with the values that a status has.
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

/// Name and help of a histogram: it is observed when it happens, and so not in a status.
pub(super) fn histogram(of: Observed) -> (&'static str, &'static str) {
    match of {
        Observed::Latency => (
            "kafka_produce_latency_seconds",
            "From the read of a topic's part of a batch to Kafka's acknowledgement",
        ),
        Observed::BatchEvents => ("batch_events", "Events of a batch, as the router gets it"),
        Observed::BatchBytes => ("batch_bytes", "Bytes of the window that a batch takes"),
    }
}

fn counter(name: &'static str, help: &'static str, value: impl Into<Value>) -> Family<'static> {
    labelled(Kind::Counter, name, help, [([], value)])
}

fn gauge(name: &'static str, help: &'static str, value: impl Into<Value>) -> Family<'static> {
    known(name, help, Some(value))
}

/// A gauge whose value may not be known.
fn known(
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
        Value::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}
