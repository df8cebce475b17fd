//! A model of the group coordinator, after Apache Kafka's `GroupCoordinator` (classic protocol).

use std::collections::{BTreeMap, BTreeSet};

use super::{REBALANCE, SESSION};
use crate::{
    error::{Code, Error, Result},
    group::{
        GroupMember, envelope,
        requests::{Heartbeat, Joined, RoundRequest},
    },
};
use bytes::Bytes;
use tokio::time::Instant;

/// Number of a request, by which its answer is delivered.
pub type Call = u64;

#[derive(Debug)]
pub enum Answer {
    Joined(Result<Joined>),
    Synced(Result<Bytes>),
    Beaten(Result<()>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing { until: Instant },
    Completing,
    Stable,
}

#[derive(Clone)]
struct Known {
    metadata: Bytes,
    assignment: Bytes,
    session_ends: Instant,
    join: Option<Call>,
    sync: Option<Call>,
}

pub struct Coordinator {
    members: BTreeMap<String, Known>,
    /// Ids of members that have not joined with them yet.
    given: BTreeSet<String>,
    last_id: u32,
    generation: i32,
    leader: String,
    phase: Phase,
    /// The group at the end of the last round: generation, leader and members.
    stored: (i32, String, BTreeMap<String, Known>),
    answers: Vec<(Call, Answer)>,
    /// Time by which sessions are shorter than the members were told: a mistake.
    pub hurry: std::time::Duration,
}

pub fn error(code: Code) -> Error {
    Error::Broker { what: "refused".into(), code, message: None }
}

impl Coordinator {
    pub fn new() -> Self {
        Coordinator {
            members: BTreeMap::new(),
            given: BTreeSet::new(),
            last_id: 0,
            generation: 0,
            leader: String::new(),
            phase: Phase::Stable,
            stored: (0, String::new(), BTreeMap::new()),
            answers: Vec::new(),
            hurry: std::time::Duration::ZERO,
        }
    }

    pub fn take_answers(&mut self) -> Vec<(Call, Answer)> {
        std::mem::take(&mut self.answers)
    }

    fn fresh_session(&self, now: Instant) -> Instant {
        now + SESSION - self.hurry
    }

    pub fn handle_round(&mut self, now: Instant, call: Call, request: RoundRequest) {
        match request {
            RoundRequest::Join { id, metadata } => self.join(now, call, id, metadata),
            RoundRequest::Sync { id, generation, assignments } => {
                let refused = match self.validate(&id, generation) {
                    Err(code) => Some(code),
                    Ok(()) => matches!(self.phase, Phase::Preparing { .. })
                        .then_some(Code::RebalanceInProgress),
                };
                match refused {
                    Some(code) => {
                        self.answers.push((call, Answer::Synced(Err(error(code)))));
                    }
                    None => self.sync(now, call, id, assignments),
                }
            }
        }
    }

    fn validate(&self, id: &str, generation: i32) -> Result<(), Code> {
        match self.members.contains_key(id) {
            false => Err(Code::UnknownMemberId),
            true if generation != self.generation => Err(Code::IllegalGeneration),
            true => Ok(()),
        }
    }

    fn join(&mut self, now: Instant, call: Call, id: String, metadata: Bytes) {
        if id.is_empty() {
            self.last_id += 1;
            let id = format!("m{}", self.last_id);
            self.given.insert(id.clone());
            self.answers.push((call, Answer::Joined(Ok(Joined::IdAssigned(id)))));
            return;
        }
        let session_ends = self.fresh_session(now);
        if self.given.remove(&id) {
            let (join, sync) = (None, None);
            let known = Known {
                metadata: Bytes::new(),
                assignment: Bytes::new(),
                session_ends,
                join,
                sync,
            };
            self.members.insert(id.clone(), known);
        }
        let is_leader = self.leader == id;
        let Some(member) = self.members.get_mut(&id) else {
            self.answers.push((call, Answer::Joined(Err(error(Code::UnknownMemberId)))));
            return;
        };
        let is_same = member.metadata == metadata;
        let is_known_already = match self.phase {
            Phase::Preparing { .. } => false,
            Phase::Completing => is_same,
            Phase::Stable => is_same && !is_leader,
        };
        if is_known_already {
            let joined = self.generation_for(&id);
            self.answers.push((call, Answer::Joined(Ok(joined))));
            return;
        }
        (member.metadata, member.join) = (metadata, Some(call));
        self.prepare(now);
        self.try_complete(now);
    }

    fn generation_for(&self, id: &str) -> Joined {
        let is_leader = self.leader == id;
        let members = self.members.iter().filter(|_| is_leader).map(|(id, known)| {
            let (metadata, assigned) = envelope::unpack(&known.metadata);
            GroupMember { id: id.clone(), metadata, assigned }
        });
        let members = members.collect();
        Joined::Generation { id: id.to_owned(), generation: self.generation, is_leader, members }
    }

    fn prepare(&mut self, now: Instant) {
        if let Phase::Preparing { .. } = self.phase {
            return;
        }
        for known in self.members.values_mut() {
            if let Some(call) = known.sync.take() {
                let refused = Err(error(Code::RebalanceInProgress));
                self.answers.push((call, Answer::Synced(refused)));
            }
        }
        self.phase = Phase::Preparing { until: now + REBALANCE };
    }

    fn try_complete(&mut self, now: Instant) {
        let Phase::Preparing { until } = self.phase else { return };
        if now < until && self.members.values().any(|known| known.join.is_none()) {
            return;
        }
        self.members.retain(|_, known| known.join.is_some());
        self.generation += 1;
        if self.members.is_empty() {
            self.phase = Phase::Stable;
            self.store();
            return;
        }
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        self.phase = Phase::Completing;
        let session_ends = self.fresh_session(now);
        let calls: Vec<_> = self
            .members
            .iter_mut()
            .filter_map(|(id, known)| {
                known.session_ends = session_ends;
                Some((id.clone(), known.join.take()?))
            })
            .collect();
        for (id, call) in calls {
            let joined = self.generation_for(&id);
            self.answers.push((call, Answer::Joined(Ok(joined))));
        }
    }

    fn sync(&mut self, now: Instant, call: Call, id: String, assignments: Vec<(String, Bytes)>) {
        if self.phase == Phase::Completing && id == self.leader {
            for (id, assignment) in assignments {
                if let Some(known) = self.members.get_mut(&id) {
                    known.assignment = assignment;
                }
            }
            self.phase = Phase::Stable;
            self.store();
        }
        let session_ends = self.fresh_session(now);
        let is_stable = self.phase == Phase::Stable;
        if let Some(known) = self.members.get_mut(&id) {
            known.sync = Some(call);
        }
        for known in self.members.values_mut().filter(|_| is_stable) {
            if let Some(call) = known.sync.take() {
                known.session_ends = session_ends;
                self.answers.push((call, Answer::Synced(Ok(known.assignment.clone()))));
            }
        }
    }

    pub fn handle_heartbeat(&mut self, now: Instant, call: Call, heartbeat: &Heartbeat) {
        let answer = match self.validate(&heartbeat.id, heartbeat.generation) {
            Err(code) => Err(error(code)),
            Ok(()) => {
                let session_ends = self.fresh_session(now);
                if let Some(known) = self.members.get_mut(&heartbeat.id) {
                    known.session_ends = session_ends;
                }
                match self.phase {
                    Phase::Preparing { .. } => Err(error(Code::RebalanceInProgress)),
                    Phase::Completing | Phase::Stable => Ok(()),
                }
            }
        };
        self.answers.push((call, Answer::Beaten(answer)));
    }

    pub fn remove(&mut self, now: Instant, id: &str) {
        self.given.remove(id);
        if self.members.remove(id).is_some() {
            self.prepare(now);
            self.try_complete(now);
        }
    }

    pub fn tick(&mut self, now: Instant) {
        let silent = self.members.iter().filter(|(_, known)| {
            known.session_ends <= now && known.join.is_none() && known.sync.is_none()
        });
        let silent: Vec<_> = silent.map(|(id, _)| id.clone()).collect();
        silent.iter().for_each(|id| self.remove(now, id));
        self.try_complete(now);
    }

    fn store(&mut self) {
        self.stored = (self.generation, self.leader.clone(), self.members.clone());
    }

    /// Another broker becomes the coordinator: it knows the group as of the last round.
    pub fn move_away(&mut self, now: Instant) {
        let (generation, leader, mut members) = self.stored.clone();
        for known in members.values_mut() {
            (known.join, known.sync, known.session_ends) = (None, None, self.fresh_session(now));
        }
        (self.generation, self.leader, self.members) = (generation, leader, members);
        self.phase = Phase::Stable;
        self.given.clear();
        self.answers.clear();
    }
}
