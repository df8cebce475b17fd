//! The membership as a state machine, without sockets or a clock.
//!
//! # States
//! A member that is *joining* sends JoinGroup, one that is *syncing* sends SyncGroup, and a *settled*
//! one has its assignment. Heartbeats are sent in every state, from the first generation on.
//!
//! # A round that moves on
//! A member that has sent JoinGroup may hear `ILLEGAL_GENERATION` to a heartbeat: the round has just
//! ended, and the answer to JoinGroup is under way. The heartbeat does not count as answered, so a
//! JoinGroup whose answer never comes ends with the session.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Assign, GroupEvent, GroupMember, GroupSettings, envelope,
    refusal::Refusal,
    requests::{Heartbeat, Joined, RoundRequest},
};
use crate::{
    error::{Error, Result},
    settings::Settings,
};

#[cfg(test)]
mod histories;
#[cfg(test)]
mod model;
mod session;
#[cfg(test)]
mod tests;
mod trouble;

use self::{session::Session, trouble::Trouble};

/// The state of a membership.
pub(super) struct Member {
    group: Arc<GroupSettings>,
    assign: Assign,
    state: State,
    session: Session,
    trouble: Trouble,
    /// Id from the coordinator; empty before the first one.
    id: String,
    generation: i32,
    metadata: Bytes,
    /// The last assignment; empty without one.
    assigned: Bytes,
    /// True if the caller has an assignment.
    has_work: bool,
    /// True if the caller wants a round with its newest metadata, and no JoinGroup carries that yet.
    wants_round: bool,
    /// Time at which JoinGroup or SyncGroup was sent, while its answer is awaited.
    round_sent: Option<Instant>,
    /// No JoinGroup and no SyncGroup is sent before this time.
    not_before: Instant,
    events: Vec<GroupEvent>,
    has_abandoned_round: bool,
    has_lost_coordinator: bool,
}

enum State {
    Joining,
    /// The leader has the assignments of all members.
    Syncing(Vec<(String, Bytes)>),
    Settled,
}

impl Member {
    pub fn new(
        now: Instant,
        settings: &Settings,
        group: Arc<GroupSettings>,
        metadata: Bytes,
        assign: Assign,
    ) -> Self {
        Member {
            session: Session::new(now, &group),
            trouble: Trouble::new(settings),
            group,
            assign,
            state: State::Joining,
            id: String::new(),
            generation: -1,
            metadata,
            assigned: Bytes::new(),
            has_work: false,
            wants_round: false,
            round_sent: None,
            not_before: now,
            events: Vec::new(),
            has_abandoned_round: false,
            has_lost_coordinator: false,
        }
    }

    /// Returns the id with which the member can leave; none before it has one.
    pub fn id(&self) -> Option<String> {
        Some(self.id.clone()).filter(|id| !id.is_empty())
    }

    pub fn take_events(&mut self) -> Vec<GroupEvent> {
        std::mem::take(&mut self.events)
    }

    /// Returns true if the answer to JoinGroup or SyncGroup is no longer awaited.
    pub fn take_abandoned_round(&mut self) -> bool {
        std::mem::take(&mut self.has_abandoned_round)
    }

    /// Returns true if the coordinator has to be searched for, and no answer is awaited from the
    /// former one.
    pub fn take_lost_coordinator(&mut self) -> bool {
        std::mem::take(&mut self.has_lost_coordinator)
    }

    pub fn update(&mut self, metadata: Bytes) {
        self.metadata = metadata;
    }

    pub fn rejoin(&mut self, metadata: Bytes) {
        self.metadata = metadata;
        self.wants_round = true;
        if let State::Settled = self.state {
            self.state = State::Joining;
        }
    }

    /// Ends the session if no heartbeat was answered for too long.
    pub fn tick(&mut self, now: Instant) {
        if self.session.is_over(now) {
            let limit = self.group.session_timeout;
            self.lose(format!("no heartbeat was answered for {limit:?}"));
            // The member may still be in the group, so it keeps its id.
            self.forget_coordinator();
        }
    }

    /// Returns the JoinGroup or SyncGroup to send now.
    pub fn next_round(&mut self, now: Instant) -> Option<RoundRequest> {
        if self.round_sent.is_some() || now < self.not_before {
            return None;
        }
        let id = self.id.clone();
        let request = match &self.state {
            State::Settled => return None,
            State::Joining => {
                self.wants_round = false;
                RoundRequest::Join { id, metadata: envelope::pack(&self.metadata, &self.assigned) }
            }
            State::Syncing(assignments) => RoundRequest::Sync {
                id,
                generation: self.generation,
                assignments: assignments.clone(),
            },
        };
        self.round_sent = Some(now);
        Some(request)
    }

    /// Returns the heartbeat to send now.
    pub fn next_heartbeat(&mut self, now: Instant) -> Option<Heartbeat> {
        let (id, generation) = (&self.id, self.generation);
        self.session.next(now, || Heartbeat { id: id.clone(), generation })
    }

    /// Returns the time at which something is to be done without an answer or command.
    pub fn wake_at(&self) -> Option<Instant> {
        let is_settled = matches!(self.state, State::Settled);
        let round = (self.round_sent.is_none() && !is_settled).then_some(self.not_before);
        [self.session.wake_at(), round].into_iter().flatten().min()
    }

    /// Handles the answer to JoinGroup.
    pub fn joined(&mut self, now: Instant, answer: Result<Joined>) {
        self.round_sent = None;
        match answer {
            Ok(Joined::IdAssigned(id)) => self.id = id,
            Ok(Joined::Generation { id, generation, is_leader, members }) => {
                (self.id, self.generation) = (id, generation);
                self.session.open(now);
                let assignments = if is_leader { self.assign(&members) } else { Vec::new() };
                self.state = State::Syncing(assignments);
            }
            Err(error) => match Refusal::of(&error) {
                Refusal::UnknownMember => self.expelled(now, &error),
                Refusal::Rebalance | Refusal::OldGeneration => self.pause(now),
                Refusal::NoCoordinator => self.coordinator_failed(now, error),
                Refusal::NoRoom => {
                    self.expelled(now, &error);
                    self.refused(now, error);
                }
                Refusal::Other => self.refused(now, error),
            },
        }
    }

    fn assign(&self, members: &[GroupMember]) -> Vec<(String, Bytes)> {
        let mut assignments = (self.assign)(members);
        let members = members.iter();
        members
            .map(|member| (member.id.clone(), assignments.remove(&member.id).unwrap_or_default()))
            .collect()
    }

    /// Handles the answer to SyncGroup.
    pub fn synced(&mut self, now: Instant, answer: Result<Bytes>) {
        let sent = self.round_sent.take().unwrap_or(now);
        match answer {
            Ok(assignment) => {
                self.session.prolong(sent);
                self.assigned = assignment.clone();
                self.has_work = true;
                self.state = if self.wants_round { State::Joining } else { State::Settled };
                self.recovered();
                let (generation, member) = (self.generation, self.id.clone());
                self.events.push(GroupEvent::Assigned { generation, member, assignment });
            }
            Err(error) => match Refusal::of(&error) {
                // The next round has begun.
                Refusal::Rebalance => self.state = State::Joining,
                // The coordinator has moved, and its successor knows only the round before. It knows
                // the member, whose work is safe.
                Refusal::OldGeneration => {
                    self.state = State::Joining;
                    self.pause(now);
                }
                Refusal::UnknownMember => self.expelled(now, &error),
                Refusal::NoCoordinator => self.coordinator_failed(now, error),
                Refusal::NoRoom | Refusal::Other => {
                    self.state = State::Joining;
                    self.refused(now, error);
                }
            },
        }
    }

    /// Handles a JoinGroup or SyncGroup that was not answered.
    #[cfg(test)]
    fn round_failed(&mut self, now: Instant, error: Error) {
        match self.state {
            State::Syncing(_) => self.synced(now, Err(error)),
            State::Joining | State::Settled => self.joined(now, Err(error)),
        }
    }

    /// Handles the answer to the heartbeat in flight.
    pub fn heartbeat_answered(&mut self, now: Instant, answer: Result<()>) {
        let Some(sent) = self.session.take_in_flight() else { return };
        let is_settled = matches!(self.state, State::Settled);
        let is_of_this_member = sent.heartbeat.id == self.id;
        let is_of_now = is_of_this_member && sent.heartbeat.generation == self.generation;
        let error = match answer {
            Ok(()) => {
                self.session.prolong(sent.at);
                if is_settled {
                    self.recovered();
                }
                return;
            }
            Err(error) => error,
        };
        match Refusal::of(&error) {
            Refusal::Rebalance => {
                self.session.prolong(sent.at);
                if is_settled && is_of_now {
                    self.state = State::Joining;
                }
            }
            Refusal::OldGeneration if is_settled && is_of_now => self.lose(error.to_string()),
            Refusal::OldGeneration => {}
            Refusal::UnknownMember if is_of_this_member => {
                self.expelled(now, &error);
                self.abandon_round();
            }
            Refusal::UnknownMember => {}
            Refusal::NoCoordinator => self.coordinator_failed(now, error),
            Refusal::NoRoom | Refusal::Other => self.events.extend(self.trouble.report(error)),
        }
    }

    /// The group has given up this member: it needs a new id.
    fn expelled(&mut self, now: Instant, error: &Error) {
        self.lose(error.to_string());
        self.id.clear();
        self.generation = -1;
        self.pause(now);
    }

    /// Lets the work go and joins again.
    fn lose(&mut self, why: String) {
        self.session.close();
        self.state = State::Joining;
        self.assigned = Bytes::new();
        if std::mem::take(&mut self.has_work) {
            self.events.push(GroupEvent::Lost { why });
        }
    }

    fn coordinator_failed(&mut self, now: Instant, error: Error) {
        self.pause(now);
        self.session.retry_at(self.not_before);
        self.events.extend(self.trouble.report_repeated(error));
        self.forget_coordinator();
    }

    fn forget_coordinator(&mut self) {
        let _ = self.session.take_in_flight();
        self.has_lost_coordinator = true;
        // It is not known how far that coordinator came; both requests can be repeated.
        self.abandon_round();
    }

    fn abandon_round(&mut self) {
        self.round_sent = None;
        self.has_abandoned_round = true;
    }

    fn refused(&mut self, now: Instant, error: Error) {
        self.not_before = self.trouble.long_pause(now);
        self.events.extend(self.trouble.report(error));
    }

    fn pause(&mut self, now: Instant) {
        self.not_before = self.trouble.pause(now);
    }

    fn recovered(&mut self) {
        self.events.extend(self.trouble.recovered());
    }
}
