//! How far a part came that could not be delivered whole.
//!
//! Kafka answers for batches of records. One record that it refuses spoils the batch that it is
//! in, and says nothing of the others there: these are *suspects*, and go out again one by one.
//! What Kafka has acknowledged is never sent again.

use std::sync::Arc;

use super::Refused;

/// How far a part came. Indexes are those of its events.
#[derive(Debug, Default)]
pub(crate) struct PartProgress {
    /// Acknowledged.
    pub delivered: Vec<usize>,
    /// Refused by themselves, and so for good.
    pub refused: Vec<Refused>,
    /// Refused together with others.
    pub suspects: Vec<usize>,
    /// Nothing is wrong with the topic: its lane need not wait before it is opened again.
    pub at_once: bool,
}

/// Which events of a part have to be sent alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspects(Option<Arc<[bool]>>);

impl Suspects {
    /// By the index of the event.
    pub fn new(all: Vec<bool>) -> Self {
        Suspects(all.contains(&true).then(|| all.into()))
    }

    pub fn contains(&self, index: usize) -> bool {
        self.0.as_ref().and_then(|all| all.get(index)).is_some_and(|suspect| *suspect)
    }
}
