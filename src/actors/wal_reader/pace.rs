//! Pace: how long data may collect in the socket before the reader takes it.
//!
//! The server makes one `send` of each message, three for a transaction with one
//! event. A reader that takes each as it comes is woken by each and makes a tiny batch of
//! it, which wakes every actor below: a relay spends its time on these wake-ups, not on the
//! work. If the reader waits a little, the socket fills up, and the server's kernel makes few
//! large packets of many small ones.
//!
//! So the reader waits, and longer the further it is behind: a delay that is there already
//! may grow by a tenth unnoticed. The server says how far it is behind: a message carries the
//! time when it was sent, and a transaction that of its commit, both of the server's clock.

use std::time::Duration;

/// The messages of a small transaction are a few microseconds apart.
const SHORTEST_US: u64 = 50;
/// Some thousand events, and less than the server's kernel holds for us meanwhile.
const LONGEST_US: u64 = 8_000;
/// Share of the delay that the pause may add: a tenth.
const SHARE: u64 = 10;

/// The delay, as the last messages show it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    committed_us: Option<i64>,
    behind_us: u64,
}

impl Pace {
    /// Notes a transaction that was committed at `committed_us`.
    pub fn begun(&mut self, committed_us: i64) {
        self.committed_us = Some(committed_us);
    }

    /// Notes a message of the last transaction that was sent at `sent_us`.
    pub fn sent(&mut self, sent_us: i64) {
        let waited = self.committed_us.map_or(0, |committed| sent_us.saturating_sub(committed));
        self.behind_us = waited.try_into().unwrap_or(0);
    }

    /// Notes that the server has nothing to send.
    pub fn idle(&mut self) {
        *self = Pace::default();
    }

    /// Pause before the socket is read.
    pub fn pause(&self) -> Duration {
        Duration::from_micros((self.behind_us / SHARE).clamp(SHORTEST_US, LONGEST_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_micros(SHORTEST_US);

    #[test]
    fn the_pause_is_a_share_of_the_delay_between_two_bounds() {
        let mut pace = Pace::default();
        assert_eq!(pace.pause(), SHORTEST);
        pace.begun(1_000);
        pace.sent(1_100);
        assert_eq!(pace.pause(), SHORTEST);
        pace.sent(21_000);
        assert_eq!(pace.pause(), Duration::from_millis(2));
        // A large transaction falls behind while it is sent.
        pace.sent(10_000_000);
        assert_eq!(pace.pause(), Duration::from_micros(LONGEST_US));
        pace.begun(10_000_000);
        pace.sent(10_000_100);
        assert_eq!(pace.pause(), SHORTEST);
    }

    #[test]
    fn a_server_without_anything_to_send_is_not_behind() {
        let mut pace = Pace::default();
        pace.begun(0);
        pace.sent(i64::MAX);
        pace.idle();
        assert_eq!(pace.pause(), SHORTEST);
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_delay() {
        let mut pace = Pace::default();
        pace.begun(i64::MAX);
        pace.sent(i64::MIN);
        assert_eq!(pace.pause(), SHORTEST);
    }
}
