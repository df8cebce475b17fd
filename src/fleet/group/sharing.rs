//! Follows the assignments of the group: starts what is assigned to this instance, and lets go of
//! what is not.
//!
//! A pipeline that moves is stopped in order and given back as soon as it has ended; a slow one
//! holds up the others for no more than [`GIVE_BACK`]. Many pipelines move in groups, each with a
//! round of the group: if all stopped at once, all would start at once elsewhere, and each would
//! stand still until the last one runs. At the end of the process all of them move in this way. If
//! the membership is lost, others may start the pipelines at any time, so they get no longer than
//! [`LOST_LIMIT`] to end.

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
    moves::Moves,
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
            moves: Moves::default(),
            leaving: None,
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

    /// Stops all pipelines in order, and leaves the group.
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
    /// Pipelines that move to other instances.
    moves: Moves,
    /// Gets the answer once all pipelines have ended. The inner one is none if nobody waits.
    leaving: Option<Option<Reply>>,
    /// Time to tell the group what has changed.
    tell_at: Option<Instant>,
    first_failure: Result<()>,
    status: watch::Sender<GroupStatus>,
    log: Logger,
}

impl Task {
    async fn run(mut self) {
        while self.leaving.is_none() || !self.holdings.is_settled() {
            let due = until(self.tell_at);
            let next_move = until(self.moves.next_at());
            tokio::select! {
                Some((name, result)) = self.endings.next() => self.ended(name, result),
                event = self.membership.next() => self.follow(event),
                command = self.commands.recv(), if self.leaving.is_none() => self.obey(command),
                () = due => self.tell(),
                () = next_move => self.next_move(),
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
                let names = self.holdings.drop_all();
                warn!(self.log, "not a member of the group any more, stopping its pipelines";
                    "reason" => &why, "pipelines" => names.len());
                self.status.send_modify(|status| status.lost(why));
                for name in names.into_iter().chain(self.moves.take_waiting()) {
                    self.stop(name, Some(LOST_LIMIT));
                }
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
            "start" => changes.start.len(), "stop" => changes.stop.len());
        self.moves.add(changes.stop);
        self.next_move();
        for name in changes.start {
            info!(self.log, "pipeline assigned to this instance"; "pipeline" => &name);
            self.start(name);
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
                    self.start(name);
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

    fn leave(&mut self, reply: Option<Reply>) {
        self.leaving = Some(reply);
        self.moves.add(self.holdings.leave());
        self.next_move();
        self.membership.update(self.metadata());
    }

    /// Stops the pipelines whose turn it is to move.
    fn next_move(&mut self) {
        for name in self.moves.next() {
            info!(self.log, "pipeline moves to another instance"; "pipeline" => &name);
            self.stop(name, None);
        }
    }

    fn start(&self, name: String) {
        if let Some(make) = self.pipelines.get(&name) {
            self.keepers.start(name, Arc::clone(make));
        }
    }

    /// Begins to stop a pipeline, within this time if there is a limit.
    fn stop(&mut self, name: String, limit: Option<Duration>) {
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
        let is_last = self.moves.ended(&name);
        if self.holdings.ended(&name) {
            self.start(name);
        }
        if self.leaving.is_none() && self.holdings.is_settled()
            || is_last && !self.holdings.is_settled()
        {
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
