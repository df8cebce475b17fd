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
    /// Where it starts: slot, system and the saved position.
    pub from: Checkpoint,
    /// Only the reader is new: what is in flight counts on, and so do the batches' numbers.
    pub continues: bool,
    pub confirm: Recipient<ConfirmLsn>,
}

/// The reader lost its connection: until the next one begins, nothing is saved unless
/// a flush asks for it. Behind the address there may be another server by then, whose
/// positions mean something else.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Hold;

/// What do you know of the present chain?
#[derive(Message)]
#[rtype(result = "Known")]
pub(crate) struct Ask;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Batches, done or not.
    pub batches: u64,
    /// The newest position that is in the store.
    pub saved: Lsn,
}

/// Save what is safe at once; with `batches`, after so many batches of this
/// generation are done. The answer is the position that is saved.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush {
    pub batches: Option<u64>,
    pub reply: oneshot::Sender<Lsn>,
}
