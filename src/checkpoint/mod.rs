//! Checkpoints: computes the position up to which everything is acknowledged, and stores it.
//!
//! A position becomes *safe* when everything up to it is acknowledged (`AckWindow`), *saved* when a
//! [`CheckpointStore`] has it, and *confirmed* when PostgreSQL was told that it may forget the WAL
//! before it. In this order: the saved position is never behind the confirmed one, and the start
//! relies on that.

pub(crate) mod ack_window;
mod file;
mod memory;
mod postgres;
mod topic_partitions;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub(crate) use self::ack_window::AckWindow;
pub use self::{file::FileStore, memory::MemoryStore, postgres::PostgresStore};
pub(crate) use self::{
    postgres::CREATE_TABLE,
    topic_partitions::{CREATE_TABLE as CREATE_TOPIC_PARTITIONS, TopicPartitions},
};
use crate::{Lsn, Result};

/// A saved position, and the slot, cluster and timeline to which it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The replication slot.
    pub slot: String,
    /// The cluster's system identifier: a position means nothing in another cluster.
    pub system_id: u64,
    /// The cluster's timeline, which changes when a standby is promoted or a backup restored.
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

/// A position that may be inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// Events of the next transaction that are safe as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// The first events of a transaction, of which the rest is to come. The server decodes a transaction
/// to the same events each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partial {
    pub xid: u32,
    /// Begin of its commit record.
    pub final_lsn: Lsn,
    /// Number of events, including rows of tables that are not relayed.
    pub events: u64,
}

/// A point in the stream, between two events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Transactions that end here or earlier lie before the point.
    pub lsn: Lsn,
    /// Events of the next transaction that lie before it, too.
    pub partial: Option<Partial>,
}

impl Checkpoint {
    /// True if positions of both mean the same.
    pub(crate) fn is_of_the_same_history(&self, other: &Checkpoint) -> bool {
        (self.system_id, self.timeline) == (other.system_id, other.timeline)
    }
}

/// Stores one checkpoint per slot.
///
/// `save` is called with rising positions, one call at a time. Once it returns, the position must
/// survive a crash of this process (and of the machine, if the store promises that), because
/// PostgreSQL forgets the WAL before it.
#[async_trait]
pub trait CheckpointStore: Send + Sync + 'static {
    /// Loads the checkpoint of a slot, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointUnavailable`](crate::ErrorKind::CheckpointUnavailable) is retried;
    /// [`ErrorKind::CheckpointInvalid`](crate::ErrorKind::CheckpointInvalid) ends the pipeline.
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>>;

    /// Replaces the slot's checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn save(&self, checkpoint: &Checkpoint) -> Result<()>;

    /// Creates the store, such as a table, if it is missing.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn create(&self) -> Result<()> {
        Ok(())
    }

    /// Removes the slot's checkpoint; the next start uses the slot's own position.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    async fn remove(&self, slot: &str) -> Result<()>;

    /// Describes the store for logs and errors, without secrets.
    fn describe(&self) -> String;
}
