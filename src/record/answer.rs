//! A client's answer for the records it was given: delivered, refused or failed.
//!
//! Kafka answers for batches of records: it refuses a whole batch for one record, and does not say
//! which. The records of such a batch are *suspects*, and are sent again one by one. A record that
//! Kafka has acknowledged is never sent again.

use std::sync::Arc;

use crate::Error;

/// An event of a [`TopicBatch`](crate::TopicBatch) that can never be delivered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// Index in [`TopicBatch::events`](crate::TopicBatch::events), from 0.
    pub index: usize,
    /// The reason. In a handler's refusal only its text counts, not its kind.
    pub error: Error,
}

impl Refused {
    /// Refuses the event at this index of the batch, for this reason.
    pub fn new(index: usize, error: Error) -> Self {
        Refused { index, error }
    }
}

/// The answer for a batch of records.
pub(crate) enum Answer {
    /// Kafka has every record.
    Delivered,
    /// Kafka has every record but these, which it will never take.
    Refused(Vec<Refused>),
    /// The batch was not delivered whole.
    Failed(Error, PartProgress),
}

/// Progress of a part, by the indexes of its events.
#[derive(Debug, Default)]
pub(crate) struct PartProgress {
    /// Events that Kafka has acknowledged.
    pub delivered: Vec<usize>,
    /// Events that were refused when they were sent alone, and so for good.
    pub refused: Vec<Refused>,
    /// Events that were refused together with others.
    pub suspects: Vec<usize>,
    /// The topic itself is fine: its lane may be opened again at once.
    pub at_once: bool,
}

/// Events of a part that have to be sent alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspects(Option<Arc<[bool]>>);

impl Suspects {
    /// Takes one flag per event of the part.
    pub fn new(all: Vec<bool>) -> Self {
        Suspects(all.contains(&true).then(|| all.into()))
    }

    pub fn contains(&self, index: usize) -> bool {
        self.0.as_ref().and_then(|all| all.get(index)).is_some_and(|suspect| *suspect)
    }
}
