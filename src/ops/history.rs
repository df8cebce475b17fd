//! Keeps the last ten minutes, one sample per second, for the charts of a page that is loaded later.

use std::collections::VecDeque;

use serde::Serialize;

use crate::{clock::now_ms, status::PipelineStatus};

/// Ten minutes.
const SAMPLES: usize = 600;

/// The samples, oldest first.
#[derive(Clone, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    last: Option<Counted>,
}

/// Rates and lag of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Events read per second.
    pub read_rate: f64,
    /// Records delivered per second.
    pub delivered_rate: f64,
    /// See [`crate::status::Lag`].
    pub lag_seconds: Option<f64>,
}

/// Counters from which the next sample's rates are computed.
#[derive(Clone, Copy)]
struct Counted {
    at_ms: u64,
    read: u64,
    delivered: u64,
}

/// The samples as one list per field, which halves the bytes.
#[derive(Serialize)]
pub(super) struct Columns {
    at_ms: Vec<u64>,
    read_rate: Vec<f64>,
    delivered_rate: Vec<f64>,
    lag_seconds: Vec<Option<f64>>,
}

impl History {
    /// Adds a sample. The first status only starts the counters, as there is no rate yet.
    pub fn take(&mut self, status: &PipelineStatus) {
        self.take_at(status, now_ms());
    }

    fn take_at(&mut self, status: &PipelineStatus, at_ms: u64) {
        let now = Counted { at_ms, read: status.events_read, delivered: status.events };
        let Some(last) = self.last.replace(now) else { return };
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        let rate = |count: u64, before: u64| per_second(count - before, at_ms, last.at_ms);
        self.samples.push_back(Sample {
            at_ms,
            read_rate: rate(now.read, last.read),
            delivered_rate: rate(now.delivered, last.delivered),
            lag_seconds: status.lag.seconds.map(|seconds| (seconds * 1_000.0).round() / 1_000.0),
        });
    }

    /// Returns the last sample.
    pub fn last(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    pub fn columns(&self) -> Columns {
        let all = || self.samples.iter();
        Columns {
            at_ms: all().map(|sample| sample.at_ms).collect(),
            read_rate: all().map(|sample| sample.read_rate).collect(),
            delivered_rate: all().map(|sample| sample.delivered_rate).collect(),
            lag_seconds: all().map(|sample| sample.lag_seconds).collect(),
        }
    }
}

/// Computes a rate with one decimal; 0 if the clock was set back.
fn per_second(count: u64, at_ms: u64, before_ms: u64) -> f64 {
    match at_ms.checked_sub(before_ms) {
        None | Some(0) => 0.0,
        #[allow(clippy::cast_precision_loss)] // No rate gets near 2^53.
        Some(ms) => (count as f64 * 10_000.0 / ms as f64).round() / 10.0,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        messages::ByteWindow,
        status::{PipelineState, Status},
    };

    #[test]
    fn rates_cover_the_time_between_two_samples() {
        let (status, mut history) = (Status::new(ByteWindow::new(10)), History::default());
        let topic: Arc<str> = "shop.user".into();
        history.take_at(&status.snapshot(), 1_000);
        assert_eq!(history.last(), None);
        status.read(500, 0);
        status.delivered(&topic, 300, Duration::ZERO);
        status.set_state(PipelineState::Running);
        history.take_at(&status.snapshot(), 3_000);
        let expected = Sample {
            at_ms: 3_000,
            read_rate: 250.0,
            delivered_rate: 150.0,
            lag_seconds: Some(0.0),
        };
        assert_eq!(history.last(), Some(expected));
        history.take_at(&status.snapshot(), 2_000);
        assert_eq!(history.last().map(|sample| sample.read_rate), Some(0.0), "set back");
    }

    #[test]
    fn ten_minutes_are_kept() {
        let (status, mut history) = (Status::new(ByteWindow::new(10)), History::default());
        for second in 0..1_000 {
            history.take_at(&status.snapshot(), second * 1_000);
        }
        let columns = history.columns();
        assert_eq!((columns.at_ms.len(), columns.at_ms[0]), (SAMPLES, 400_000));
    }
}
