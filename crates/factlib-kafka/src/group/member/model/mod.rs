//! A model of members that share out work, their coordinator and the network; the histories run
//! against it.

mod coordinator;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use self::coordinator::{Answer, Call, Coordinator, error};
use super::Member;
use crate::{
    error::{Code, Error},
    group::{
        Assign, GroupEvent, GroupMember, GroupSettings,
        requests::{Heartbeat, RoundRequest},
    },
    settings::Settings,
};

const SESSION: Duration = Duration::from_secs(6);
const REBALANCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(100);

const NODES: usize = 3;
const WORK: u8 = 6;

/// A deliberate mistake that the histories must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The coordinator gives up members before the time that they were told.
    ShortSession,
    /// The leader gives away what a member still has.
    GivesAwayAtOnce,
    /// The leader does not look at what members were assigned last.
    ForgetsAssigned,
    /// Members do not say that they took up work.
    TakesUpSilently,
}

/// One step of a history. A number selects a member or a message.
#[derive(Clone, Debug)]
pub enum Step {
    /// Time passes, in tenths of a second.
    Pass(u8),
    /// The coordinator handles the member's next JoinGroup, SyncGroup or heartbeat.
    Process(u8),
    /// A member receives an answer.
    Receive(u8),
    /// The member's connections break: it gets no answer to what it sent, but the coordinator may
    /// still handle it.
    Break(u8),
    /// The member's process is paused.
    Sleep(u8),
    /// It goes on.
    Wake(u8),
    /// The member is killed, and another one starts.
    Crash(u8),
    /// The member leaves in order, and another one starts.
    Leave(u8),
    /// The member lets go of what it no longer is assigned.
    LetGo(u8),
    /// The member wants a round.
    Wish(u8),
    /// The coordinator moves to another broker.
    Move,
}

struct Node {
    member: Member,
    round: Option<Call>,
    beat: Option<Call>,
    sent_rounds: VecDeque<(Call, RoundRequest)>,
    sent_beats: VecDeque<(Call, Heartbeat)>,
    has: BTreeSet<u8>,
    /// What it has and is to let go of.
    excess: BTreeSet<u8>,
    is_asleep: bool,
    /// True if its connections broke; it notices once it is awake.
    is_cut: bool,
}

pub struct World {
    now: Instant,
    coordinator: Coordinator,
    nodes: Vec<Node>,
    answers: Vec<(Call, Answer)>,
    calls: Call,
    mutation: Option<Mutation>,
    failure: Option<String>,
}

impl World {
    pub fn new(mutation: Option<Mutation>) -> Self {
        let now = Instant::now();
        let mut coordinator = Coordinator::new();
        if mutation == Some(Mutation::ShortSession) {
            coordinator.hurry = SESSION / 2;
        }
        let nodes = (0..NODES).map(|_| Node::new(now, mutation)).collect();
        let answers = Vec::new();
        World { now, coordinator, nodes, answers, calls: 0, mutation, failure: None }
    }

    pub fn step(&mut self, step: &Step) {
        let at = |number: &u8| usize::from(*number) % NODES;
        match step {
            Step::Pass(ticks) => {
                for _ in 0..*ticks {
                    self.now += TICK;
                    self.run_all();
                    self.coordinator.tick(self.now);
                }
            }
            Step::Process(number) => self.process(*number),
            Step::Receive(number) if !self.answers.is_empty() => {
                let (call, answer) = self.answers.remove(usize::from(*number) % self.answers.len());
                self.receive(call, answer);
            }
            Step::Receive(_) => {}
            Step::Break(number) => self.nodes[at(number)].is_cut = true,
            Step::Sleep(number) => self.nodes[at(number)].is_asleep = true,
            Step::Wake(number) => self.nodes[at(number)].is_asleep = false,
            Step::Crash(number) => self.nodes[at(number)] = Node::new(self.now, self.mutation),
            Step::Leave(number) => {
                let node = &mut self.nodes[at(number)];
                if let Some(id) = node.member.id().filter(|_| !node.is_asleep) {
                    self.coordinator.remove(self.now, &id);
                    *node = Node::new(self.now, self.mutation);
                }
            }
            Step::LetGo(number) => self.nodes[at(number)].let_go(),
            Step::Wish(number) => {
                let node = &mut self.nodes[at(number)];
                node.member.rejoin(node.metadata());
            }
            Step::Move => {
                self.coordinator.move_away(self.now);
                self.answers.clear();
                self.nodes.iter_mut().for_each(|node| node.is_cut = true);
            }
        }
        self.run_all();
    }

    fn process(&mut self, number: u8) {
        let node = &mut self.nodes[usize::from(number) % NODES];
        // Each kind has its own connection, so there is no order between them.
        match usize::from(number) / NODES % 2 {
            0 => {
                if let Some((call, request)) = node.sent_rounds.pop_front() {
                    self.coordinator.handle_round(self.now, call, request);
                }
            }
            _ => {
                if let Some((call, heartbeat)) = node.sent_beats.pop_front() {
                    self.coordinator.handle_heartbeat(self.now, call, &heartbeat);
                }
            }
        }
    }

    fn receive(&mut self, call: Call, answer: Answer) {
        let now = self.now;
        let waits = |node: &&mut Node| node.round == Some(call) || node.beat == Some(call);
        let Some(node) = self.nodes.iter_mut().find(waits) else { return };
        if node.is_asleep {
            self.answers.push((call, answer));
            return;
        }
        match answer {
            Answer::Joined(answer) => {
                node.round = None;
                node.member.joined(now, answer);
            }
            Answer::Synced(answer) => {
                node.round = None;
                node.member.synced(now, answer);
            }
            Answer::Beaten(answer) => {
                node.beat = None;
                node.member.heartbeat_answered(now, answer);
            }
        }
    }

    /// Lets all members that are awake do what is due.
    fn run_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_asleep) {
            node.run(self.now, &mut self.calls, self.mutation);
        }
        self.answers.extend(self.coordinator.take_answers());
        for piece in 0..WORK {
            let awake = self.nodes.iter().filter(|node| !node.is_asleep);
            if awake.filter(|node| node.has.contains(&piece)).count() > 1 {
                self.failure.get_or_insert(format!("two members have piece {piece}"));
            }
        }
    }

    /// Lets everything work until the work is shared, and stays so; or for a minute.
    pub fn heal(&mut self) {
        let mut shared_for = 0;
        for _ in 0..600 {
            shared_for = if self.is_shared() { shared_for + 1 } else { 0 };
            if shared_for > 20 {
                return;
            }
            self.step(&Step::Pass(1));
            for number in 0..NODES as u8 * 2 {
                self.step(&Step::Wake(number));
                self.step(&Step::Process(number));
                self.step(&Step::LetGo(number));
            }
            for _ in 0..self.answers.len() {
                self.step(&Step::Receive(0));
            }
        }
    }

    pub fn judge(self) -> Result<(), String> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.is_shared() {
            true => Ok(()),
            false => Err("the work is not shared in the end".into()),
        }
    }

    fn is_shared(&self) -> bool {
        self.nodes.iter().all(|node| node.has.len() == usize::from(WORK) / NODES)
    }
}

impl Node {
    fn new(now: Instant, mutation: Option<Mutation>) -> Self {
        let mut group = GroupSettings::new("fleet", "test");
        (group.session_timeout, group.rebalance_timeout) = (SESSION, REBALANCE);
        let settings = Settings::new(Vec::new());
        let assign: Assign = Arc::new(move |members| deal(members, mutation));
        Node {
            member: Member::new(now, &settings, Arc::new(group), Bytes::new(), assign),
            round: None,
            beat: None,
            sent_rounds: VecDeque::new(),
            sent_beats: VecDeque::new(),
            has: BTreeSet::new(),
            excess: BTreeSet::new(),
            is_asleep: false,
            is_cut: false,
        }
    }

    fn metadata(&self) -> Bytes {
        self.has.iter().copied().collect()
    }

    fn let_go(&mut self) {
        if !self.excess.is_empty() && !self.is_asleep {
            let excess = std::mem::take(&mut self.excess);
            self.has.retain(|piece| !excess.contains(piece));
            self.member.rejoin(self.metadata());
        }
    }

    /// Does what the membership's task does before it waits.
    fn run(&mut self, now: Instant, calls: &mut Call, mutation: Option<Mutation>) {
        if std::mem::take(&mut self.is_cut) {
            if self.beat.take().is_some() {
                self.member.heartbeat_answered(now, Err(gone()));
                self.abandon();
            }
            if self.round.take().is_some() {
                self.member.round_failed(now, gone());
            }
        }
        self.member.tick(now);
        self.abandon();
        let events = self.member.take_events();
        let mut send = || {
            *calls += 1;
            *calls
        };
        if let Some(request) = self.member.next_round(now) {
            let call = send();
            self.round = Some(call);
            self.sent_rounds.push_back((call, request));
        }
        if let Some(heartbeat) = self.member.next_heartbeat(now) {
            let call = send();
            self.beat = Some(call);
            self.sent_beats.push_back((call, heartbeat));
        }
        // The caller reads them after the task has sent its requests.
        events.into_iter().for_each(|event| self.handle(event, mutation));
    }

    /// Waits no longer for the answers that the member has given up.
    fn abandon(&mut self) {
        if self.member.take_abandoned_round() {
            self.round = None;
        }
        if self.member.take_lost_coordinator() {
            self.beat = None;
        }
    }

    fn handle(&mut self, event: GroupEvent, mutation: Option<Mutation>) {
        match event {
            GroupEvent::Assigned { assignment, .. } => {
                let assigned: BTreeSet<u8> = assignment.iter().copied().collect();
                self.excess = self.has.difference(&assigned).copied().collect();
                self.has.extend(assigned);
                if mutation != Some(Mutation::TakesUpSilently) {
                    self.member.update(self.metadata());
                }
            }
            GroupEvent::Lost { .. } => {
                (self.has, self.excess) = Default::default();
                self.member.rejoin(Bytes::new());
            }
            _ => {}
        }
    }
}

/// Shares out the work in turn; gives to another member only what nobody has.
fn deal(members: &[GroupMember], mutation: Option<Mutation>) -> BTreeMap<String, Bytes> {
    let mut shares: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for piece in 0..WORK {
        let target = &members[usize::from(piece) % members.len()];
        let assigned = |member: &&GroupMember| {
            mutation != Some(Mutation::ForgetsAssigned) && member.assigned.contains(&piece)
        };
        let owners: Vec<_> = members
            .iter()
            .filter(|member| assigned(member) || member.metadata.contains(&piece))
            .collect();
        let is_free = owners.iter().all(|owner| owner.id == target.id);
        if is_free || mutation == Some(Mutation::GivesAwayAtOnce) {
            shares.entry(target.id.clone()).or_default().push(piece);
        }
    }
    shares.into_iter().map(|(id, share)| (id, share.into())).collect()
}

fn gone() -> Error {
    error(Code::CoordinatorNotAvailable)
}
