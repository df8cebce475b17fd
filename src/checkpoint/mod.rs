//! Where the relay stands: what is safe, and where that is kept.
//!
//! A position goes through three hands, in this order: it is *safe* when all up
//! to it is acknowledged (`AckWindow`), *saved* when a [`CheckpointStore`] has
//! it, *confirmed* when PostgreSQL was told that it may forget it. What is saved
//! is therefore never behind what is confirmed, and start-up relies on that.

pub(crate) mod ack_window;
mod file;
mod memory;
mod postgres;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub(crate) use self::ack_window::AckWindow;
pub(crate) use self::postgres::CREATE_TABLE;
pub use self::{file::FileStore, memory::MemoryStore, postgres::PostgresStore};
use crate::{Lsn, Result};

/// A saved position, with what it is a position in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The replication slot.
    pub slot: String,
    /// The cluster's system identifier: positions of another cluster mean nothing.
    pub system_id: u64,
    /// The cluster's timeline; it changes when a standby is promoted or a backup restored.
    pub timeline: u32,
    /// Everything up to here is safe.
    pub lsn: Lsn,
}

impl Checkpoint {
    /// The position `lsn` of a slot, in the cluster with this identifier and on this timeline.
    pub fn new(slot: impl Into<String>, system_id: u64, timeline: u32, lsn: Lsn) -> Self {
        Checkpoint { slot: slot.into(), system_id, timeline, lsn }
    }
}

/// A position, also inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// What is behind it and safe as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// The first events of a transaction whose others are to come. A server decodes a
/// transaction to the same events each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partial {
    pub xid: u32,
    /// Where its commit record begins.
    pub final_lsn: Lsn,
    /// How many; rows of tables that are not ours count as well.
    pub events: u64,
}

/// A place in the stream, between two events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// All that ended at or before it is behind.
    pub lsn: Lsn,
    /// What else is.
    pub partial: Option<Partial>,
}

impl Checkpoint {
    /// Whether a position of one means the same in the other.
    pub(crate) fn is_of_the_same_history(&self, other: &Checkpoint) -> bool {
        (self.system_id, self.timeline) == (other.system_id, other.timeline)
    }
}

/// Keeps checkpoints, one a slot.
///
/// `save` is called with rising positions, one call at a time. When it has
/// returned, the position must survive a crash of this process, and for a store
/// that promises it, of the machine: PostgreSQL forgets the WAL below it.
#[async_trait]
pub trait CheckpointStore: Send + Sync + 'static {
    /// The checkpoint of a slot, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointUnavailable`](crate::ErrorKind::CheckpointUnavailable) is retried;
    /// [`ErrorKind::CheckpointInvalid`](crate::ErrorKind::CheckpointInvalid) ends the pipeline.
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>>;

    /// Puts the checkpoint in the place of the slot's former one.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn save(&self, checkpoint: &Checkpoint) -> Result<()>;

    /// Makes what checkpoints are kept in, where it is missing.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn create(&self) -> Result<()> {
        Ok(())
    }

    /// Forgets the slot's checkpoint: at the next start the slot's own position counts.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn remove(&self, slot: &str) -> Result<()>;

    /// What and where it is, for logs and errors; no secrets.
    fn describe(&self) -> String;
}
