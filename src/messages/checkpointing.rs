//! Supervisor → checkpointer.

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use super::ConfirmLsn;
use crate::{Lsn, checkpoint::Checkpoint};

/// A new generation: acknowledgements of older ones are ignored from here on, unless
/// it continues the one before.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginGeneration {
    pub generation: u64,
    /// Its start: slot, system and the saved position.
    pub from: Checkpoint,
    /// Only the reader is new: what is in flight counts on, and so do the batches' numbers.
    pub continues: bool,
    pub confirm: Recipient<ConfirmLsn>,
}

/// The reader lost its connection: until the next one begins, save nothing unless a flush
/// asks for it. Another server may have the address by then, and its positions mean something
/// else.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct HoldSaves;

/// How far has the present chain come?
#[derive(Message)]
#[rtype(result = "SavedProgress")]
pub(crate) struct GetSavedProgress;

/// Checkpointer → supervisor: progress of the present chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedProgress {
    /// Batches, done or not.
    pub batches: u64,
    /// The newest position that is in the store.
    pub saved: Lsn,
}

/// Save the safe position at once; with `batches`, after that many batches of this generation
/// are done. The answer is the saved position.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush {
    pub batches: Option<u64>,
    pub reply: oneshot::Sender<Lsn>,
}
