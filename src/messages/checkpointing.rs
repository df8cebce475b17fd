//! Messages supervisor → checkpointer: begin a generation, save now, report progress.

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use super::ConfirmLsn;
use crate::{Lsn, checkpoint::Checkpoint};

/// Begin a new generation: acknowledgements of older ones are ignored from here on, unless it
/// continues the previous one.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginGeneration {
    pub generation: u64,
    /// Its start: slot, system and the saved position.
    pub from: Checkpoint,
    /// Only the reader is new: batches in flight still count, and batch numbers continue.
    pub continues: bool,
    pub confirm: Recipient<ConfirmLsn>,
}

/// The reader lost its connection: save nothing until the next generation begins, unless a flush
/// asks for it. Another server may have taken the address, and its positions mean something else.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HoldSaves;

/// Get the progress of the current chain.
#[derive(Message)]
#[rtype(result = "SavedProgress")]
pub(crate) struct GetSavedProgress;

/// Checkpointer → supervisor: progress of the current chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedProgress {
    /// Number of batches, done or not.
    pub batches: u64,
    /// The newest position in the store.
    pub saved: Lsn,
}

/// Save the safe position at once; with `batches`, as soon as that many batches of this generation
/// are done. The reply is the saved position.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush {
    pub batches: Option<u64>,
    pub reply: oneshot::Sender<Lsn>,
}
