//! State of each actor: what it does, what it waits for and for how long, and its last failure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Status, unix_seconds};
use crate::Error;

/// State of an actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorState {
    /// Being built, or connecting.
    #[default]
    Starting,
    /// Working.
    Running,
    /// Waiting: see [`ActorStatus::blocked_by`].
    Blocked,
    /// Stopped with the pipeline.
    Stopped,
}

/// Cause of a wait of an actor or a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockedBy {
    /// `pipeline.window` is full: delivery is slower than PostgreSQL.
    Window,
    /// PostgreSQL can't be reached or ended the connection.
    Postgres,
    /// Another instance reads the slot.
    Slot,
    /// The checkpoint store can't save the position.
    Store,
    /// The topic is not open yet, or is being reopened after a failure.
    Topic,
    /// The topic is paused.
    Pause,
    /// The handler failed and is being retried.
    Handler,
    /// The Kafka client reports an error of the brokers.
    Kafka,
    /// A standby has not flushed a commit: see `delivery.wait_for_standbys`.
    Standby,
    /// A transaction is not visible to other sessions: see `delivery.wait_for_visibility`.
    Visibility,
}

impl BlockedBy {
    /// Its name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            BlockedBy::Window => "window",
            BlockedBy::Postgres => "postgres",
            BlockedBy::Slot => "slot",
            BlockedBy::Store => "store",
            BlockedBy::Topic => "topic",
            BlockedBy::Pause => "pause",
            BlockedBy::Handler => "handler",
            BlockedBy::Kafka => "kafka",
            BlockedBy::Standby => "standby",
            BlockedBy::Visibility => "visibility",
        }
    }
}

/// An actor at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ActorStatus {
    /// State.
    pub state: ActorState,
    /// Cause of the present wait.
    pub blocked_by: Option<BlockedBy>,
    /// Total time waited, in seconds, by cause.
    pub blocked_seconds: BTreeMap<BlockedBy, f64>,
    /// Number of failures after which it was restarted.
    pub restarts: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// Time of the last failure, Unix seconds.
    pub last_error_at: Option<u64>,
}

/// The counters behind [`ActorStatus`].
#[derive(Default)]
pub(super) struct Actor {
    pub state: ActorState,
    pub waits: Waits,
    pub restarts: u64,
    pub error: Option<Failure>,
}

impl Actor {
    pub fn snapshot(&self, now: Instant) -> ActorStatus {
        let blocked_by = self.waits.cause();
        ActorStatus {
            state: if blocked_by.is_some() { ActorState::Blocked } else { self.state },
            blocked_by,
            blocked_seconds: self.waits.seconds(now),
            restarts: self.restarts,
            last_error: self.error.as_ref().map(|error| error.text.clone()),
            last_error_at: self.error.as_ref().map(|error| error.at),
        }
    }
}

/// A failure and its time in Unix seconds.
pub(super) struct Failure {
    pub text: String,
    pub at: u64,
}

/// A stopwatch for each cause of waiting, of which at most one runs.
#[derive(Default)]
pub(super) struct Waits {
    done: BTreeMap<BlockedBy, Duration>,
    running: Option<(BlockedBy, Instant)>,
}

impl Waits {
    /// Starts the stopwatch of this cause, or stops them all.
    pub fn set(&mut self, what: Option<BlockedBy>, now: Instant) {
        if self.cause() == what {
            return;
        }
        if let Some((what, since)) = self.running.take() {
            *self.done.entry(what).or_default() += now.saturating_duration_since(since);
        }
        self.running = what.map(|what| (what, now));
    }

    pub fn cause(&self) -> Option<BlockedBy> {
        self.running.map(|(what, _)| what)
    }

    /// Totals by cause, including the present wait.
    pub fn seconds(&self, now: Instant) -> BTreeMap<BlockedBy, f64> {
        let mut total = self.done.clone();
        if let Some((what, since)) = self.running {
            *total.entry(what).or_default() += now.saturating_duration_since(since);
        }
        total.into_iter().map(|(what, time)| (what, time.as_secs_f64())).collect()
    }
}

impl Status {
    pub fn actor_failed(&self, actor: &'static str, error: &Error) {
        self.actor(actor, |actor| actor.restarts += 1);
        self.actor_complains(actor, error.to_string());
    }

    /// Notes an error after which the actor goes on by itself.
    pub fn actor_complains(&self, actor: &'static str, text: String) {
        self.actor(actor, |actor| actor.error = Some(Failure { text, at: unix_seconds() }));
    }

    /// Sets the state and ends a wait.
    pub fn actor_is(&self, actor: &'static str, state: ActorState) {
        self.actor(actor, |actor| {
            actor.state = state;
            actor.waits.set(None, Instant::now());
        });
    }

    /// Begins a wait for this cause, or ends one.
    pub fn actor_waits(&self, actor: &'static str, what: Option<BlockedBy>) {
        self.actor(actor, |actor| actor.waits.set(what, Instant::now()));
    }

    fn actor(&self, actor: &'static str, change: impl FnOnce(&mut Actor)) {
        change(self.locked().actors.entry(actor).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_timed_by_cause() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut waits = Waits::default();
        waits.set(Some(BlockedBy::Window), at(0));
        // Repeating the cause continues the same wait.
        waits.set(Some(BlockedBy::Window), at(3));
        waits.set(Some(BlockedBy::Postgres), at(5));
        waits.set(None, at(6));
        waits.set(Some(BlockedBy::Window), at(10));
        let seconds = |second| waits.seconds(at(second)).into_values().collect::<Vec<_>>();
        assert_eq!((seconds(12), waits.cause()), (vec![7.0, 1.0], Some(BlockedBy::Window)));
    }

    #[test]
    fn names_are_those_of_the_json() {
        for what in [BlockedBy::Window, BlockedBy::Store, BlockedBy::Pause, BlockedBy::Kafka] {
            assert_eq!(serde_json::json!(what), what.name());
        }
    }
}
