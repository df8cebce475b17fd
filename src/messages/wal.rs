//! Messages reader → decoder → router: batches of WAL bytes, then of events.

use std::fmt;

use actix::Message;
use bytes::Bytes;

use super::WindowPermit;
use crate::{Event, Lsn, checkpoint::Cut};

/// Identifies a batch: number `seq` of the reader of this generation.
///
/// A generation is one start of the reader. `seq` counts from 0 without a gap as long as the chain
/// below the reader lives, so that the acknowledgement window can find the end of the contiguous
/// done batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId {
    /// Number of the reader's start.
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
    /// End of the last transaction that ends in this batch, or none: the position that is safe once
    /// this batch and all before it are done.
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
    /// Position of the stream after this batch. Messages without a transaction move it too; after a
    /// restart they are read again from `commit_end_lsn`.
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
