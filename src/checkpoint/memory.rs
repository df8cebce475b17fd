//! Stores checkpoints in memory.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Checkpoint, CheckpointStore};
use crate::Result;

/// Stores checkpoints for the life of the process; a start uses the slot's own position. A crash
/// repeats a little more than with the other stores, because PostgreSQL saves that position only now
/// and then.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<HashMap<String, Checkpoint>>);

impl MemoryStore {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Checkpoint>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        Ok(self.slots().get(slot).cloned())
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.slots().insert(checkpoint.slot.clone(), checkpoint.clone());
        Ok(())
    }

    async fn remove(&self, slot: &str) -> Result<()> {
        self.slots().remove(slot);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
