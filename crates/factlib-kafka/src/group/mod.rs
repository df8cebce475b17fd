//! Membership of a consumer group whose members share out work of any kind.
//!
//! It speaks the classic protocol with a [`PROTOCOL_TYPE`] of its own, as Kafka Connect does. The
//! group coordinator (a broker) tracks who is alive and chooses a leader. It passes the members'
//! metadata to the leader, and the leader's assignments to the members, without looking into either.
//!
//! # Life
//! [`Membership::join`] starts a task. It joins the group, reports the assignment by
//! [`Membership::next`], and sends heartbeats while the caller works. When the members change, or
//! one of them calls [`Membership::rejoin`], all members join again: a round. The leader then
//! assigns the work anew, and each member receives its new assignment. [`Membership::leave`] ends the
//! membership in order. Dropping the [`Membership`] ends its task without a word to the group, which
//! notices it after the session time-out, as after a crash.
//!
//! # Moving work without a pause
//! Members keep their work during a round (as in KIP-429). To never give work to two members, the
//! leader may give to another member only what nobody has: a member has what its
//! [`metadata`](GroupMember::metadata) says, and what it was [assigned](GroupMember::assigned) last.
//! A member that misses work in its new assignment lets go of it and then calls
//! [`Membership::rejoin`] with metadata that no longer lists it. That round gives it to another
//! member. A member that takes up work calls [`Membership::update`], which starts no round.
//!
//! # Failure
//! The membership outlives every failure and joins again by itself. [`GroupEvent::Lost`] reports
//! that the group may have given this member's work to others: the coordinator said so, or answered
//! no heartbeat for [`GroupSettings::session_timeout`] by this host's own clock. Until then, a
//! coordinator that restarts or moves costs nothing. Everything that has to be mended by an
//! administrator is reported as [`GroupEvent::Trouble`] and tried again.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{error::Error, settings::Settings};

mod coordinator;
pub(crate) mod envelope;
mod mailbox;
mod member;
mod refusal;
mod requests;
mod task;

use self::{coordinator::Coordinator, mailbox::Mailbox, member::Member, task::Task};

/// The `protocol_type` of the group. The coordinator refuses members with another one, such as
/// consumers.
pub const PROTOCOL_TYPE: &str = "factlib";

/// Limit for the coordinator's answer when a member leaves.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Settings of a group; they should be the same for all members.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupSettings {
    /// Name of the group (`group.id`).
    pub group: String,
    /// Name and version of the metadata's format. Members without a common one can't be in a group.
    pub protocol: String,
    /// Time without a heartbeat after which the group gives up a member. Brokers allow six seconds
    /// to thirty minutes by default (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`).
    pub session_timeout: Duration,
    /// Time for which a round waits for members. They join by themselves, so only a member that is
    /// cut off makes others wait, and at most for its session.
    pub rebalance_timeout: Duration,
    /// Pause between heartbeats, by whose answers a member hears of a round.
    pub heartbeat_interval: Duration,
}

impl GroupSettings {
    /// Returns the default settings of a group.
    pub fn new(group: impl Into<String>, protocol: impl Into<String>) -> Self {
        GroupSettings {
            group: group.into(),
            protocol: protocol.into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(1),
        }
    }
}

/// A member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "tests of assignments build members")]
pub struct GroupMember {
    /// Id that the coordinator gave to this membership.
    pub id: String,
    /// The member's newest metadata.
    pub metadata: Bytes,
    /// The assignment that this member received last. Empty if it has received none or has
    /// [lost](GroupEvent::Lost) it.
    pub assigned: Bytes,
}

/// Computes the assignments by member id. Runs on the leader only, on the membership's task. A
/// member that the result lacks receives an empty assignment.
pub type Assign = Arc<dyn Fn(&[GroupMember]) -> BTreeMap<String, Bytes> + Send + Sync>;

/// News of a membership.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// A round has ended with this assignment, which replaces the one before.
    Assigned {
        /// Number of the round, which only rises while the group has members.
        generation: i32,
        /// Id of this member.
        member: String,
        /// The leader's assignment for this member.
        assignment: Bytes,
    },
    /// The group may have given the work to others: let go of all of it now, then call
    /// [`Membership::rejoin`] with metadata that lists none. The member joins again by itself, but
    /// others wait for what it still seems to have.
    Lost {
        /// The reason.
        why: String,
    },
    /// The member can't join, or its coordinator can't be reached. Reported once for each error until
    /// [`Recovered`](Self::Recovered); the attempts go on.
    Trouble {
        /// The error.
        error: Error,
        /// Advice, if an administrator can mend it.
        remedy: Option<&'static str>,
    },
    /// The trouble is over.
    Recovered,
}

/// The membership of a group; see the [module](self).
pub struct Membership {
    commands: mpsc::UnboundedSender<Command>,
    events: Arc<Mailbox>,
}

/// A caller's command for the membership's task.
enum Command {
    Update(Bytes),
    Rejoin(Bytes),
    Leave(oneshot::Sender<()>),
}

impl Membership {
    /// Joins a group in the background; tries for ever. `metadata` is what the leader sees of this
    /// member. Must be called on a tokio runtime.
    pub fn join(
        settings: Arc<Settings>,
        group: GroupSettings,
        metadata: Bytes,
        assign: Assign,
    ) -> Membership {
        let (commands, commanded) = mpsc::unbounded_channel();
        let events = Arc::new(Mailbox::default());
        let group = Arc::new(group);
        let coordinator = Arc::new(Coordinator::new(&settings, &group));
        let member = Member::new(Instant::now(), &settings, Arc::clone(&group), metadata, assign);
        let task = Task::new(group, member, coordinator, Arc::clone(&events));
        tokio::spawn(task.run(commanded));
        Membership { commands, events }
    }

    /// Waits for the next event. An assignment that a later event has replaced is left out. Dropping
    /// the future loses no event.
    pub async fn next(&mut self) -> GroupEvent {
        self.events.next().await
    }

    /// Replaces the metadata without a round; the next one uses it.
    pub fn update(&self, metadata: Bytes) {
        let _ = self.commands.send(Command::Update(metadata));
    }

    /// Replaces the metadata and starts a round: the wishes of this member have changed, or it has
    /// let go of work. During a round, another one follows.
    pub fn rejoin(&self, metadata: Bytes) {
        let _ = self.commands.send(Command::Rejoin(metadata));
    }

    /// Leaves the group, which assigns this member's work to others at once: let go of it before.
    /// Returns after two seconds at most; then the group notices by the session time-out.
    pub async fn leave(self) {
        let (done, is_done) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).is_ok() {
            let _ = timeout(LEAVE_LIMIT, is_done).await;
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").finish_non_exhaustive()
    }
}
