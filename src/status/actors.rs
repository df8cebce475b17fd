//! What each actor does, what it waits for and for how long, and what it failed with.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Status, unix_seconds};
use crate::Error;

/// What an actor does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorState {
    /// It is being built, or connects.
    #[default]
    Starting,
    /// It takes what comes.
    Running,
    /// It waits: see [`ActorStatus::blocked_by`].
    Blocked,
    /// It has ended with the pipeline.
    Stopped,
}

/// What an actor or a topic can't go on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockedBy {
    /// Room in `pipeline.window`: what is below is slower than PostgreSQL.
    Window,
    /// PostgreSQL, which can't be reached or ended the connection.
    Postgres,
    /// The slot, which another instance reads.
    Slot,
    /// The checkpoint store.
    Store,
    /// The topic, which is not open yet, or again after a failure.
    Topic,
    /// Somebody who paused the topic.
    Pause,
    /// The handler, which has failed and is called again.
    Handler,
    /// The brokers, of which the Kafka client complains.
    Kafka,
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
        }
    }
}

/// An actor at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ActorStatus {
    /// What it does.
    pub state: ActorState,
    /// What it waits for, while it does.
    pub blocked_by: Option<BlockedBy>,
    /// How long it has waited in all, in seconds, by what for.
    pub blocked_seconds: BTreeMap<BlockedBy, f64>,
    /// How often it failed and was started again.
    pub restarts: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// When that was, Unix seconds.
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
        let blocked_by = self.waits.what();
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

/// What failed, and when, in Unix seconds.
pub(super) struct Failure {
    pub text: String,
    pub at: u64,
}

/// A stopwatch for each thing that may be waited for, of which one runs at a time.
#[derive(Default)]
pub(super) struct Waits {
    done: BTreeMap<BlockedBy, Duration>,
    running: Option<(BlockedBy, Instant)>,
}

impl Waits {
    /// From `now` on it waits for `what`, or no longer.
    pub fn set(&mut self, what: Option<BlockedBy>, now: Instant) {
        if self.what() == what {
            return;
        }
        if let Some((what, since)) = self.running.take() {
            *self.done.entry(what).or_default() += now.saturating_duration_since(since);
        }
        self.running = what.map(|what| (what, now));
    }

    pub fn what(&self) -> Option<BlockedBy> {
        self.running.map(|(what, _)| what)
    }

    /// The total of each, what runs included.
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

    /// It goes on by itself.
    pub fn actor_complains(&self, actor: &'static str, text: String) {
        self.actor(actor, |actor| actor.error = Some(Failure { text, at: unix_seconds() }));
    }

    /// What it does from now on; it waits for nothing.
    pub fn actor_is(&self, actor: &'static str, state: ActorState) {
        self.actor(actor, |actor| {
            actor.state = state;
            actor.waits.set(None, Instant::now());
        });
    }

    /// It waits for this from now on, or for nothing.
    pub fn actor_waits(&self, actor: &'static str, what: Option<BlockedBy>) {
        self.actor(actor, |actor| actor.waits.set(what, Instant::now()));
    }

    fn actor(&self, actor: &'static str, change: impl FnOnce(&mut Actor)) {
        change(self.slow().actors.entry(actor).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_timed_by_what_it_is_for() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut waits = Waits::default();
        waits.set(Some(BlockedBy::Window), at(0));
        // Said again, it is the same wait.
        waits.set(Some(BlockedBy::Window), at(3));
        waits.set(Some(BlockedBy::Postgres), at(5));
        waits.set(None, at(6));
        waits.set(Some(BlockedBy::Window), at(10));
        let seconds = |second| waits.seconds(at(second)).into_values().collect::<Vec<_>>();
        assert_eq!((seconds(12), waits.what()), (vec![7.0, 1.0], Some(BlockedBy::Window)));
    }

    #[test]
    fn names_are_those_of_the_json() {
        for what in [BlockedBy::Window, BlockedBy::Store, BlockedBy::Pause, BlockedBy::Kafka] {
            assert_eq!(serde_json::json!(what), what.name());
        }
    }
}
