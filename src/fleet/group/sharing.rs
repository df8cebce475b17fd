//! Follows the assignments of the group: starts what is assigned to this instance, and lets go of
//! what is not.
//!
//! A pipeline that moves is prepared by its new owner first, which then waits for the slot; when the
//! old one is told to, it stops the pipeline in order. So a pipeline stands still for the time between
//! the two, however long its start takes. At the end of the process all pipelines move in this way,
//! within `fleet.handover_timeout`. If the membership is lost, others may start the pipelines at any
//! time, so they get no longer than [`LOST_LIMIT`] to end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_rt::time::{Instant, sleep_until};
use bytes::Bytes;
use factlib_kafka::group::{GroupEvent, GroupMember, GroupSettings, Membership};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use slog::{Logger, info, o, warn};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    assignment::assign,
    holdings::Holdings,
    messages::{InstanceAssignment, InstanceMetadata, decode, encode},
    preparations::Preparations,
};
use crate::{
    Result,
    clock::now_ms,
    config::FleetConfig,
    fleet::{MakePipeline, keepers::Keepers},
    kafka::{KafkaSettings, pipelined::client_settings},
    ops::GroupStatus,
};

/// Longest wait for slow pipelines before those that have ended are given back.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// Pause before the group is told of new and removed pipelines, as several may come together.
const TELL: Duration = Duration::from_millis(200);

/// Limit for the end of pipelines that others may start already.
const LOST_LIMIT: Duration = Duration::from_secs(3);

/// Limit for the other instances to answer a rebalance: none of them waits for its pipelines.
const REBALANCE_LIMIT: Duration = Duration::from_secs(10);

/// Name of the way in which the leader assigns; all members have to know it.
const PROTOCOL: &str = "factlib";

/// The pipelines of this process, shared with other instances.
pub(in crate::fleet) struct Sharing {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<GroupStatus>,
}

type Reply = oneshot::Sender<Result<()>>;

enum Command {
    Set(String, MakePipeline),
    Remove(String, Reply),
    Leave(Reply),
}

impl Sharing {
    /// Joins the group in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a setting that the client does not take.
    pub fn start(
        group: &str,
        config: &FleetConfig,
        kafka: &KafkaSettings,
        keepers: Keepers,
        log: Logger,
    ) -> Result<Self> {
        let settings = Arc::new(client_settings(kafka)?);
        let instance = config.instance_name();
        let log = log.new(o!("group" => group.to_owned(), "instance" => instance.clone()));
        let session = config.session_timeout;
        let mut in_group = GroupSettings::new(group, PROTOCOL);
        in_group.session_timeout = session;
        in_group.rebalance_timeout = REBALANCE_LIMIT.max(session);
        in_group.heartbeat_interval = heartbeat(session);
        let holdings = Holdings::new(instance.clone(), config.limit());
        let (commands, received) = mpsc::unbounded_channel();
        let (changed, status) = watch::channel(GroupStatus::new(group, instance));
        let metadata = encode(&holdings.metadata([].into_iter())).into();
        let task = Task {
            membership: Membership::join(settings, in_group, metadata, Arc::new(assign_all)),
            commands: received,
            keepers,
            pipelines: BTreeMap::new(),
            holdings,
            endings: FuturesUnordered::new(),
            removals: BTreeMap::new(),
            preparations: Preparations::default(),
            may_take_slots: BTreeMap::new(),
            leaving: None,
            leave_at: None,
            handover_timeout: config.handover_timeout,
            tell_at: None,
            first_failure: Ok(()),
            status: changed,
            log,
        };
        actix_rt::spawn(task.run());
        Ok(Sharing { commands, status })
    }

    /// The place in the group, now and later.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.status.clone()
    }

    /// Adds or replaces a pipeline.
    pub fn set(&self, name: String, make: MakePipeline) {
        // The task ends only after this.
        let _ = self.commands.send(Command::Set(name, make));
    }

    /// Removes a pipeline, and waits for its end; it is removed in any case.
    pub fn remove(&self, name: &str) -> impl Future<Output = Result<()>> + use<> {
        let (reply, ended) = oneshot::channel();
        let _ = self.commands.send(Command::Remove(name.to_owned(), reply));
        async { ended.await.unwrap_or(Ok(())) }
    }

    /// Stops all pipelines in order, as others become ready for them, and leaves the group.
    ///
    /// # Errors
    /// The first error of a pipeline that did not stop in order.
    pub async fn leave(&self) -> Result<()> {
        let (reply, left) = oneshot::channel();
        let _ = self.commands.send(Command::Leave(reply));
        left.await.unwrap_or(Ok(()))
    }
}

/// Interval at which the coordinator is told that this instance lives, and answers if there is a
/// rebalance: the shorter, the sooner a pipeline moves.
fn heartbeat(session: Duration) -> Duration {
    (session / 20).clamp(Duration::from_millis(300), Duration::from_secs(1))
}

/// Assigns the pipelines of all members. One whose metadata can't be read gets none.
fn assign_all(members: &[GroupMember]) -> BTreeMap<String, Bytes> {
    let read = |member: &GroupMember| {
        let metadata = decode::<InstanceMetadata>(&member.metadata).unwrap_or_default();
        metadata.with_assigned(decode(&member.assigned).unwrap_or_default())
    };
    let members = members.iter().map(|one| (one.id.clone(), read(one)));
    let assigned = assign(&members.collect(), now_ms());
    assigned.into_iter().map(|(id, assignment)| (id, encode(&assignment).into())).collect()
}

struct Task {
    membership: Membership,
    commands: mpsc::UnboundedReceiver<Command>,
    keepers: Keepers,
    /// Those of the configuration.
    pipelines: BTreeMap<String, MakePipeline>,
    holdings: Holdings,
    /// Pipelines that are being stopped.
    endings: FuturesUnordered<LocalBoxFuture<'static, (String, Result<()>)>>,
    /// Removed pipelines that are being stopped.
    removals: BTreeMap<String, Vec<Reply>>,
    preparations: Preparations,
    /// Tells each prepared pipeline when no other instance runs it any more.
    may_take_slots: BTreeMap<String, watch::Sender<bool>>,
    /// Gets the answer once all pipelines have ended. The inner one is none if nobody waits.
    leaving: Option<Option<Reply>>,
    /// Time at which the pipelines that are left stop, whoever is ready for them.
    leave_at: Option<Instant>,
    handover_timeout: Duration,
    /// Time to tell the group what has changed.
    tell_at: Option<Instant>,
    first_failure: Result<()>,
    status: watch::Sender<GroupStatus>,
    log: Logger,
}

impl Task {
    async fn run(mut self) {
        while self.leaving.is_none() || !self.holdings.is_empty() {
            let due = until(self.tell_at);
            let leave_now = until(self.leave_at);
            tokio::select! {
                Some((name, result)) = self.endings.next() => self.ended(name, result),
                event = self.membership.next() => self.follow(event),
                command = self.commands.recv(), if self.leaving.is_none() => self.obey(command),
                name = self.preparations.next() => self.ready(&name),
                () = due => self.tell(),
                () = leave_now => self.drop_all(None),
            }
        }
        info!(self.log, "leaving the group");
        self.membership.leave().await;
        if let Some(Some(reply)) = self.leaving {
            let _ = reply.send(self.first_failure);
        }
    }

    fn follow(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned { generation, assignment, .. } => {
                let Some(assignment) = decode::<InstanceAssignment>(&assignment) else {
                    warn!(self.log, "the group's assignment can't be read";
                        "remedy" => "give fleet.group a name that no other program uses, and all \
                                     instances the same version");
                    return;
                };
                self.assigned(generation, &assignment);
            }
            GroupEvent::Lost { why } => {
                warn!(self.log, "not a member of the group any more, stopping its pipelines";
                    "reason" => &why, "pipelines" => self.holdings.count());
                self.status.send_modify(|status| status.lost(why));
                self.drop_all(Some(LOST_LIMIT));
                self.membership.update(self.metadata());
            }
            GroupEvent::Trouble { error, remedy } => {
                warn!(self.log, "cannot reach the group"; "error" => %error, "remedy" => remedy);
                self.status.send_modify(|status| status.trouble(error.to_string()));
            }
            GroupEvent::Recovered => {
                info!(self.log, "the group can be reached again");
            }
            _ => {}
        }
    }

    fn assigned(&mut self, generation: i32, assignment: &InstanceAssignment) {
        let changes = self.holdings.assigned(assignment, |name| self.pipelines.contains_key(name));
        info!(self.log, "pipelines assigned"; "generation" => generation,
            "instances" => assignment.instances, "held" => self.holdings.count(),
            "start" => changes.start.len(), "prepare" => changes.prepare.len(),
            "stop" => changes.stop.len());
        for name in changes.stop {
            info!(self.log, "pipeline moves to another instance"; "pipeline" => &name);
            self.stop(name, None);
        }
        for name in assignment.pipelines.keys() {
            self.preparations.hurry(name);
            if let Some(may_take_slot) = self.may_take_slots.remove(name) {
                may_take_slot.send_replace(true);
            }
        }
        for name in changes.start {
            info!(self.log, "pipeline assigned to this instance"; "pipeline" => &name);
            self.start(name);
        }
        for name in changes.prepare {
            info!(self.log, "pipeline coming to this instance"; "pipeline" => &name);
            self.prepare(name);
        }
        if !assignment.unassigned.is_empty() {
            let names: Vec<_> = assignment.unassigned.iter().map(String::as_str).collect();
            warn!(self.log, "pipelines that no instance has room for";
                "pipelines" => names.join(", "),
                "remedy" => "add an instance, or raise fleet.max_pipelines");
        }
        // What it runs now counts in the next round, whoever asks for it.
        self.membership.update(self.metadata());
        let held = self.holdings.count();
        self.status.send_modify(|status| {
            status.assigned(held, assignment.instances, &assignment.unassigned);
        });
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Set(name, make)) => {
                self.pipelines.insert(name.clone(), make);
                if self.holdings.has(&name) {
                    self.start_again(name);
                } else {
                    self.tell_within(TELL);
                }
            }
            Some(Command::Remove(name, reply)) => {
                if self.pipelines.remove(&name).is_none() {
                    let _ = reply.send(Ok(()));
                    return;
                }
                self.tell_within(TELL);
                if self.holdings.drop_one(&name) {
                    self.removals.entry(name.clone()).or_default().push(reply);
                    self.stop(name, None);
                } else {
                    let _ = reply.send(Ok(()));
                }
            }
            Some(Command::Leave(reply)) => self.leave(Some(reply)),
            None => self.leave(None),
        }
    }

    /// Lets the others prepare for its pipelines, if there are any.
    fn leave(&mut self, reply: Option<Reply>) {
        self.leaving = Some(reply);
        for name in self.holdings.leave() {
            self.stop(name, None);
        }
        if self.status.borrow().instances > 1 && !self.handover_timeout.is_zero() {
            self.leave_at = Some(Instant::now() + self.handover_timeout);
            self.tell();
        } else {
            self.drop_all(None);
        }
    }

    /// Begins to stop all pipelines, within this time if there is a limit.
    fn drop_all(&mut self, limit: Option<Duration>) {
        self.leave_at = None;
        for name in self.holdings.drop_all() {
            self.stop(name, limit);
        }
    }

    /// Starts a changed or stopped pipeline that this instance runs or will run.
    fn start_again(&mut self, name: String) {
        match self.holdings.is_coming(&name) {
            true => self.prepare(name),
            false => self.start(name),
        }
    }

    fn start(&mut self, name: String) {
        // One that is coming may wait for its turn.
        self.preparations.forget(&name);
        if let Some(make) = self.pipelines.get(&name) {
            let shared = Some(watch::channel(true).1);
            // It starts by itself.
            drop(self.keepers.start(name, Arc::clone(make), shared));
        }
    }

    /// Starts a pipeline that another instance runs, when it is its turn.
    fn prepare(&mut self, name: String) {
        if let Some(make) = self.pipelines.get(&name) {
            let (keepers, make) = (self.keepers.clone(), Arc::clone(make));
            self.holdings.is_not_ready(&name);
            let of = name.clone();
            let (may_take_slot, shared) = watch::channel(false);
            self.may_take_slots.insert(name.clone(), may_take_slot);
            self.preparations.begin(name, move || keepers.start(of, make, Some(shared)));
        }
    }

    /// A pipeline waits for nothing but its slot.
    fn ready(&mut self, name: &str) {
        if self.holdings.is_ready(name) {
            self.tell_within(TELL);
        }
    }

    /// Begins to stop a pipeline, within this time if there is a limit.
    fn stop(&mut self, name: String, limit: Option<Duration>) {
        self.preparations.forget(&name);
        self.may_take_slots.remove(&name);
        let keeper = self.keepers.take(&name);
        self.endings.push(
            async move {
                let ended = match (keeper, limit) {
                    (None, _) => Ok(()),
                    (Some(keeper), Some(limit)) => keeper.stop_within(limit).await,
                    (Some(keeper), None) => keeper.stop().await,
                };
                (name, ended)
            }
            .boxed_local(),
        );
        self.tell_within(GIVE_BACK);
    }

    fn ended(&mut self, name: String, result: Result<()>) {
        // What happened before the end of the process is in the log.
        if self.leaving.is_some()
            && let (Err(failure), Ok(())) = (&result, &self.first_failure)
        {
            self.first_failure = Err(failure.clone());
        }
        for reply in self.removals.remove(&name).into_iter().flatten() {
            let _ = reply.send(result.clone());
        }
        if self.holdings.ended(&name) {
            self.start_again(name);
        }
        if self.holdings.is_settled() && (self.leaving.is_none() || !self.holdings.is_empty()) {
            self.tell();
        }
    }

    fn tell_within(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.tell_at = Some(self.tell_at.map_or(at, |other| other.min(at)));
    }

    /// Tells the group what has changed, so that it assigns the pipelines again.
    fn tell(&mut self) {
        self.tell_at = None;
        if !self.holdings.is_settled() {
            self.tell_within(GIVE_BACK);
        }
        self.membership.rejoin(self.metadata());
    }

    fn metadata(&self) -> Bytes {
        encode(&self.holdings.metadata(self.pipelines.keys().cloned())).into()
    }
}

/// Waits until this time, for ever if there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
