//! Spaces the requests to a busy broker, so that each carries enough records.
//!
//! A request costs the broker and this client much more than a record does. While nothing is in
//! flight, a request leaves at once. While requests are in flight, the next one waits for a gap
//! that adapts to the load: it grows while much is sent in small requests, and shrinks otherwise.

use super::{Duration, Instant};

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(8);

/// Load, in records per millisecond, from which the gap grows.
const BUSY: usize = 15;

/// Sizes from which larger requests gain little.
const MANY_RECORDS: usize = 1_000;
const MANY_BYTES: usize = 256 << 10;

/// The gap between two requests to a broker.
pub(super) struct Pace {
    last: Instant,
    gap: Duration,
}

impl Pace {
    pub fn new() -> Self {
        Pace { last: Instant::now(), gap: SHORTEST }
    }

    /// Returns the time before which no request is sent to a broker that has some in flight.
    pub fn next(&self) -> Instant {
        self.last + self.gap
    }

    /// Adapts the gap to a request with so many records, and bytes of them.
    pub fn sent(&mut self, now: Instant, records: usize, bytes: usize) {
        let ms = (now - self.last).max(SHORTEST).as_millis() as usize;
        let is_busy = records / ms >= BUSY;
        let is_small = records < MANY_RECORDS && bytes < MANY_BYTES;
        self.gap = match is_busy && is_small {
            true => self.gap * 2,
            false => self.gap / 2,
        };
        self.gap = self.gap.clamp(SHORTEST, LONGEST);
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a number of requests at this load, each as soon as the gap allows.
    fn gap_at(records_per_ms: usize) -> Duration {
        let mut pace = Pace::new();
        for _ in 0..20 {
            let ms = pace.gap.as_millis() as usize;
            pace.sent(pace.next(), records_per_ms * ms, 300 * records_per_ms * ms);
        }
        pace.gap
    }

    #[test]
    fn the_gap_grows_only_while_much_is_sent_in_small_requests() {
        assert_eq!(gap_at(5), SHORTEST);
        assert_eq!(gap_at(75), LONGEST);
        // Larger requests gain nothing.
        assert!(gap_at(800) <= SHORTEST * 2);
    }

    #[test]
    fn the_gap_shrinks_when_the_load_is_over() {
        let mut pace = Pace { last: Instant::now(), gap: LONGEST };
        for _ in 0..3 {
            pace.sent(pace.next(), 1, 400);
        }
        assert_eq!(pace.gap, SHORTEST);
    }
}
