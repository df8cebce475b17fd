//! Messages router → checkpointer → reader: batches that are done, positions to confirm.

use actix::Message;

use super::BatchId;
use crate::Lsn;

/// Every part of the batch is acknowledged, or the batch had no events for us.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BatchDone {
    pub id: BatchId,
    pub commit_end_lsn: Option<Lsn>,
    /// Number of events in it; 0 for a batch that only moves the position.
    pub events: usize,
}

/// Everything up to this position is acknowledged and saved, so PostgreSQL may forget it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ConfirmLsn(pub Lsn);
