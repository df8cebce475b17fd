//! Reader → decoder → router.

use std::fmt;

use actix::Message;
use bytes::Bytes;

use super::WindowPermit;
use crate::{Event, Lsn, checkpoint::Cut};

/// A batch's name: the `seq`-th that the reader of this generation cut.
///
/// A generation is one life of the reader; `seq` counts from 0 without a gap for as
/// long as the chain below it lives, which is what lets the acknowledgement window
/// find the end of the contiguous part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId {
    /// Number of the reader's life.
    pub generation: u64,
    /// Number of the batch in its chain.
    pub seq: u64,
}

/// A run of whole replication messages, as they came off the socket.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WalBatch {
    pub id: BatchId,
    /// Whole CopyData messages, headers included.
    pub frames: Bytes,
    /// Up to where everything is safe once this batch and all before it are:
    /// the end of the last transaction that ends in it, or none.
    pub commit_end_lsn: Option<Lsn>,
    pub permit: WindowPermit,
}

impl fmt::Debug for WalBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalBatch")
            .field("id", &self.id)
            .field("bytes", &self.frames.len())
            .field("commit_end_lsn", &self.commit_end_lsn)
            .finish()
    }
}

/// The events of a batch, in commit order. Never empty.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EventBatch {
    pub id: BatchId,
    pub events: Vec<Event>,
    pub commit_end_lsn: Option<Lsn>,
    /// Position of the stream behind it. Messages without a transaction move it, too; they
    /// are read again from `commit_end_lsn`.
    pub end: Cut,
    pub permit: WindowPermit,
}

impl fmt::Debug for EventBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBatch")
            .field("id", &self.id)
            .field("events", &self.events.len())
            .field("commit_end_lsn", &self.commit_end_lsn)
            .finish()
    }
}
