//! Router → checkpointer → reader.

use actix::Message;

use super::BatchId;
use crate::Lsn;

/// Every part of the batch is acknowledged, or none of it concerned us.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BatchDone {
    pub id: BatchId,
    pub commit_end_lsn: Option<Lsn>,
    /// Events in it; 0 for what only moves the position.
    pub events: usize,
}

/// Everything up to here is safe and saved: PostgreSQL may forget it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ConfirmLsn(pub Lsn);
