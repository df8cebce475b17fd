//! The member's session: its end by this host's clock, and the heartbeats that prolong it.
//!
//! The coordinator starts the session anew at each heartbeat, so also while a round runs, and when it
//! answers SyncGroup (`GroupCoordinator.completeAndScheduleNextHeartbeatExpiration`). It gets a
//! request no earlier than it was sent. So the time of sending plus the session time-out comes before
//! the coordinator gives up the member, and the member lets go of its work before others get it.

use std::time::Duration;

use tokio::time::Instant;

use crate::group::{GroupSettings, requests::Heartbeat};

/// The session of a member; closed before its first generation and after a loss.
pub(super) struct Session {
    timeout: Duration,
    interval: Duration,
    ends: Option<Instant>,
    in_flight: Option<SentHeartbeat>,
    next_heartbeat: Instant,
}

/// A heartbeat in flight.
pub(super) struct SentHeartbeat {
    pub at: Instant,
    pub heartbeat: Heartbeat,
}

impl Session {
    pub fn new(now: Instant, group: &GroupSettings) -> Self {
        Session {
            timeout: group.session_timeout,
            interval: group.heartbeat_interval,
            ends: None,
            in_flight: None,
            next_heartbeat: now,
        }
    }

    /// Opens the session. One that is open is prolonged only by [`prolong`](Self::prolong): the answer
    /// to JoinGroup may be late.
    pub fn open(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.ends = Some(now + self.timeout);
            self.next_heartbeat = now + self.interval;
        }
    }

    pub fn close(&mut self) {
        (self.ends, self.in_flight) = (None, None);
    }

    /// The coordinator has answered a request that was sent at this time.
    pub fn prolong(&mut self, sent: Instant) {
        self.ends = self.ends.map(|present| present.max(sent + self.timeout));
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// Returns the heartbeat to send now, for the member that `beat` returns.
    pub fn next(&mut self, now: Instant, beat: impl FnOnce() -> Heartbeat) -> Option<Heartbeat> {
        if self.ends.is_none() || self.in_flight.is_some() || now < self.next_heartbeat {
            return None;
        }
        self.next_heartbeat = now + self.interval;
        let heartbeat = beat();
        self.in_flight = Some(SentHeartbeat { at: now, heartbeat: heartbeat.clone() });
        Some(heartbeat)
    }

    /// Returns the heartbeat in flight, whose answer has come or is no longer awaited.
    pub fn take_in_flight(&mut self) -> Option<SentHeartbeat> {
        self.in_flight.take()
    }

    /// Sends the next heartbeat at this time.
    pub fn retry_at(&mut self, at: Instant) {
        self.next_heartbeat = at;
    }

    /// Returns the time of the next heartbeat or of the session's end.
    pub fn wake_at(&self) -> Option<Instant> {
        let heartbeat = self.ends.filter(|_| self.in_flight.is_none());
        [self.ends, heartbeat.map(|_| self.next_heartbeat)].into_iter().flatten().min()
    }
}
