//! What histograms count: batches, and how long parts take.

use std::sync::OnceLock;

use prometheus_client::metrics::histogram::Histogram;

use super::Status;

/// Bounds of how many events a batch has.
const BATCH_EVENTS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0];
/// Bounds of its bytes as it was read, in the window.
const BATCH_BYTES: [f64; 7] =
    [4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// Bounds of what Kafka may take for a part, in seconds: from a local broker to an outage.
pub(super) const LATENCIES: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// What a histogram is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observed {
    /// From the read of a topic's part of a batch to the acknowledgement, in seconds.
    Latency,
    /// The events of a batch.
    BatchEvents,
    /// The bytes of the window that a batch takes.
    BatchBytes,
}

/// Of what, of which topic, and how much.
type Hearer = Box<dyn Fn(Observed, Option<&str>, f64) + Send + Sync>;

/// The histograms of batches, and who hears of all that is observed.
pub(super) struct Observations {
    events: Histogram,
    bytes: Histogram,
    hearer: OnceLock<Hearer>,
}

impl Default for Observations {
    fn default() -> Self {
        Observations {
            events: Histogram::new(BATCH_EVENTS),
            bytes: Histogram::new(BATCH_BYTES),
            hearer: OnceLock::new(),
        }
    }
}

impl Observations {
    /// Call it with nothing locked: that is code of others.
    pub fn tell(&self, what: Observed, topic: Option<&str>, value: f64) {
        if let Some(hear) = self.hearer.get() {
            hear(what, topic, value);
        }
    }
}

impl Status {
    /// A batch has so many events, and so many bytes of the window.
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    pub fn batch(&self, events: usize, bytes: usize) {
        let (events, bytes) = (events as f64, bytes as f64);
        self.observed.events.observe(events);
        self.observed.bytes.observe(bytes);
        self.observed.tell(Observed::BatchEvents, None, events);
        self.observed.tell(Observed::BatchBytes, None, bytes);
    }

    /// How many events batches have, and how many bytes of the window they took.
    pub fn batches(&self) -> (Histogram, Histogram) {
        (self.observed.events.clone(), self.observed.bytes.clone())
    }

    /// Who hears of what histograms count, when it happens; the first counts.
    #[cfg(feature = "metrics")]
    pub fn on_observed(&self, hear: impl Fn(Observed, Option<&str>, f64) + Send + Sync + 'static) {
        let _ = self.observed.hearer.set(Box::new(hear));
    }
}
