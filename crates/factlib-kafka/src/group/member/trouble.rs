//! Pauses after failures, and the errors that the caller knows.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::{
    error::Error,
    group::{GroupEvent, refusal::remedy},
    settings::Settings,
};

/// Failures in a row that are not reported if the next attempt succeeds: a coordinator moves, or a
/// new cluster creates its topic of groups.
const QUIET_FAILURES: u32 = 3;

/// Failures since the last recovery.
pub(super) struct Trouble {
    first_pause: Duration,
    longest_pause: Duration,
    failures: u32,
    /// Errors that were reported.
    reported: BTreeSet<String>,
}

impl Trouble {
    pub fn new(settings: &Settings) -> Self {
        Trouble {
            first_pause: settings.backoff,
            longest_pause: settings.backoff_max,
            failures: 0,
            reported: BTreeSet::new(),
        }
    }

    /// Counts a failure and returns the end of the pause after it; pauses double.
    pub fn pause(&mut self, now: Instant) -> Instant {
        let pause = self.first_pause * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        now + pause.min(self.longest_pause)
    }

    /// Returns the end of the pause after an error that only an administrator can mend.
    pub fn long_pause(&self, now: Instant) -> Instant {
        now + self.longest_pause
    }

    /// Returns the event for an error, unless it was reported.
    pub fn report(&mut self, error: Error) -> Option<GroupEvent> {
        self.reported.insert(error.to_string()).then(|| {
            let remedy = remedy(&error);
            GroupEvent::Trouble { error, remedy }
        })
    }

    /// Returns the event for an error that often ends by itself, once there were several in a row.
    pub fn report_repeated(&mut self, error: Error) -> Option<GroupEvent> {
        if self.failures > QUIET_FAILURES { self.report(error) } else { None }
    }

    /// Returns the event for the end of reported errors.
    pub fn recovered(&mut self) -> Option<GroupEvent> {
        self.failures = 0;
        let was_reported = !self.reported.is_empty();
        self.reported.clear();
        was_reported.then_some(GroupEvent::Recovered)
    }
}
