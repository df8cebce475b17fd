//! A client's answer for the records it was given: delivered, refused or failed.
//!
//! A record that Kafka has acknowledged is never sent again.

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
    /// Events that Kafka refused for good.
    pub refused: Vec<Refused>,
}
