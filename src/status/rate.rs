//! Measures how fast a number grows: samples in, a rate per second over the last seconds out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Recent samples of a number.
pub(super) struct Rate {
    span: Duration,
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Averages over `span`, or over less until that much is known.
    pub fn over(span: Duration) -> Self {
        Rate { span, samples: VecDeque::new() }
    }

    /// Adds a sample. Drops samples older than the span, except for the newest of them, and ignores
    /// samples that come more often than forty times per span.
    pub fn sample(&mut self, value: u64, now: Instant) {
        let last = self.samples.back();
        if last.is_some_and(|(at, _)| now.saturating_duration_since(*at) < self.span / 40) {
            return;
        }
        self.samples.push_back((now, value));
        let old = |at: Instant| now.saturating_duration_since(at) >= self.span;
        while self.samples.get(1).is_some_and(|(at, _)| old(*at)) {
            self.samples.pop_front();
        }
    }

    /// Growth per second up to the last sample; negative if the number shrinks. None for one sample.
    #[allow(clippy::cast_precision_loss)] // For display.
    pub fn per_second(&self) -> Option<f64> {
        let ((first, from), (last, to)) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.saturating_duration_since(*first).as_secs_f64();
        (seconds > 0.0).then(|| (*to as f64 - *from as f64) / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let start = Instant::now();
        let mut rate = Rate::over(Duration::from_secs(10));
        let mut at = |second, value| {
            rate.sample(value, start + Duration::from_secs(second));
            rate.per_second()
        };
        assert_eq!(at(0, 100), None);
        assert_eq!(at(1, 300), Some(200.0));
        assert_eq!(at(1, 999), Some(200.0), "too soon");
        assert_eq!(at(10, 1_100), Some(100.0));
        // From here on, the first burst is over.
        assert_eq!(at(11, 1_100), Some(80.0));
        assert_eq!(at(25, 1_100), Some(0.0));
        assert_eq!(at(35, 1_000), Some(-10.0));
    }
}
