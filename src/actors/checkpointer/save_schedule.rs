//! Decides when the next save is due: a plain struct, under the [`Checkpointer`].
//!
//! [`Checkpointer`]: super::Checkpointer

use std::time::Duration;

use tokio::time::Instant;

use crate::config::CheckpointConfig;

/// First pause after a save that failed; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Amount of WAL without events of ours after which a save is due as if there were some: the
/// server frees whole segments, of 16 MB unless it was built otherwise.
pub(super) const WAL_SEGMENT: u64 = 16 << 20;

pub(crate) struct SaveSchedule {
    config: CheckpointConfig,
    /// WAL with events of ours after which a save is due at once, whatever the interval.
    window_bytes: u64,
    /// Start of the last save.
    last: Option<Instant>,
    /// Number of failures in a row since a save succeeded.
    pub failures: u32,
    /// Events, not only positions, are waiting to be saved.
    pub events_waiting: bool,
}

impl SaveSchedule {
    pub fn new(config: CheckpointConfig, window_bytes: u64) -> Self {
        SaveSchedule { config, window_bytes, last: None, failures: 0, events_waiting: false }
    }

    /// Time of the next save with this many bytes of WAL that are safe and not saved. A flush waits
    /// for no interval.
    pub fn at(&self, unsaved: u64, flush: bool, now: Instant) -> Instant {
        self.last.map_or(now, |last| last + self.pause(unsaved, flush))
    }

    /// Notes the start of a save of all that is safe.
    pub fn begins(&mut self, now: Instant) {
        self.last = Some(now);
        self.events_waiting = false;
    }

    fn pause(&self, unsaved: u64, flush: bool) -> Duration {
        if self.failures > 0 {
            return RETRY_FIRST.saturating_mul(1 << (self.failures - 1).min(10)).min(RETRY_MAX);
        }
        let window = self.events_waiting && unsaved >= self.window_bytes;
        match (flush || window, self.events_waiting || unsaved >= WAL_SEGMENT) {
            (true, _) => Duration::ZERO,
            (false, true) => self.config.interval,
            // A save in the database moves the WAL's end itself; unhurried, that is no traffic.
            (false, false) => self.config.idle_interval,
        }
    }
}
