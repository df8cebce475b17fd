//! Keeps the histograms: sizes of batches, and latencies of parts.

use std::sync::OnceLock;

use prometheus_client::metrics::histogram::Histogram;

use super::Status;

/// Bounds for the number of events in a batch.
const BATCH_EVENTS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0];
/// Bounds for the bytes of the window that a batch takes.
const BATCH_BYTES: [f64; 7] =
    [4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// Bounds for the latency of a part, in seconds: from a local broker to an outage.
pub(super) const LATENCIES: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// The quantity that a histogram observes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observed {
    /// Time from reading a topic's part of a batch to its acknowledgement, in seconds.
    Latency,
    /// Number of events in a batch.
    BatchEvents,
    /// Bytes of the window that a batch takes.
    BatchBytes,
}

/// Called with the quantity, its topic, and the value.
type Observer = Box<dyn Fn(Observed, Option<&str>, f64) + Send + Sync>;

/// The histograms of batches, and the observer of all values.
pub(super) struct Observations {
    events: Histogram,
    bytes: Histogram,
    observer: OnceLock<Observer>,
}

impl Default for Observations {
    fn default() -> Self {
        Observations {
            events: Histogram::new(BATCH_EVENTS),
            bytes: Histogram::new(BATCH_BYTES),
            observer: OnceLock::new(),
        }
    }
}

impl Observations {
    /// Calls the observer. Hold no lock meanwhile: it is foreign code.
    pub fn notify(&self, what: Observed, topic: Option<&str>, value: f64) {
        if let Some(observe) = self.observer.get() {
            observe(what, topic, value);
        }
    }
}

impl Status {
    /// Notes a batch's number of events and bytes of the window.
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    pub fn batch(&self, events: usize, bytes: usize) {
        let (events, bytes) = (events as f64, bytes as f64);
        self.observed.events.observe(events);
        self.observed.bytes.observe(bytes);
        self.observed.notify(Observed::BatchEvents, None, events);
        self.observed.notify(Observed::BatchBytes, None, bytes);
    }

    /// Histograms of the events and of the bytes of batches.
    pub fn batches(&self) -> (Histogram, Histogram) {
        (self.observed.events.clone(), self.observed.bytes.clone())
    }

    /// Sets the observer, which gets each value as it happens; only the first call counts.
    #[cfg(feature = "metrics")]
    pub fn on_observed(
        &self,
        observe: impl Fn(Observed, Option<&str>, f64) + Send + Sync + 'static,
    ) {
        let _ = self.observed.observer.set(Box::new(observe));
    }
}
