//! Messages supervisor ⇄ all actors: life cycle, failures and commands.

use std::{fmt, sync::Arc};

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use crate::{Error, Lsn};

/// The kind of an actor; a topic's producer is named by its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActorKind {
    WalReader,
    CommitGate,
    Decoder,
    Router,
    Coordinator,
    Lane { lane: usize, epoch: u32 },
    Checkpointer,
}

impl ActorKind {
    /// The actor's name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            ActorKind::WalReader => "wal_reader",
            ActorKind::CommitGate => "commit_gate",
            ActorKind::Decoder => "decoder",
            ActorKind::Router => "router",
            ActorKind::Coordinator => "coordinator",
            ActorKind::Lane { .. } => "topic_producer",
            ActorKind::Checkpointer => "checkpointer",
        }
    }
}

impl fmt::Display for ActorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An actor's value was dropped, because it stopped or panicked.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ActorExited {
    pub actor: ActorKind,
    pub generation: u64,
    pub panicked: bool,
}

/// Tells the supervisor when the actor that owns it ends, for any reason.
///
/// An actor holds one as a field. actix drops the actor's value when its
/// context ends and when a handler panics; nothing else reports a panic.
pub(crate) struct ExitGuard {
    pub actor: ActorKind,
    pub generation: u64,
    pub to: Recipient<ActorExited>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        self.to.do_send(ActorExited {
            actor: self.actor,
            generation: self.generation,
            panicked: std::thread::panicking(),
        });
    }
}

/// An actor of the chain can't continue: restart the chain from the checkpoint.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ChainFailed {
    pub actor: ActorKind,
    pub generation: u64,
    pub error: Error,
}

/// The server has started streaming: the slot is ours.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Streaming {
    pub generation: u64,
}

/// The reader lost its connection, and all of its batches are in the mailbox before this message.
/// Report the progress; events read again from an earlier position are skipped.
#[derive(Debug, Message)]
#[rtype(result = "DecodedProgress")]
pub(crate) struct ReaderEnded;

/// Decoder → supervisor: progress of what was sent to the router.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodedProgress {
    /// Number of batches, including those without events.
    pub batches: u64,
    /// End position of the last batch sent.
    pub lsn: Lsn,
    /// Commit position of the last transaction with an event.
    pub last_event: Option<Lsn>,
}

/// Stop reading. The reply is the total number of batches.
#[derive(Debug, Message)]
#[rtype(result = "u64")]
pub(crate) struct Drain;

/// The reader lost its connection: drop what is held, and pass nothing on after the answer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct CloseGate;

/// Reply when nothing is held any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct UntilReleased(pub oneshot::Sender<()>);

/// Confirm this position as the last one and close the connection.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub(crate) struct Finish(pub Lsn);

/// Stop now; unfinished work counts as failed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// Finish the batches in flight and stop; the pipeline's outcome says how it went.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Shutdown;

/// The publication may have changed: check it now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct CheckPublication;

/// Pause or resume the sending of a topic's events.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PauseTopic {
    pub topic: Arc<str>,
    pub paused: bool,
}
