//! A receipt: what became of one event.

use serde::Serialize;

use crate::Lsn;

/// What became of an event, as the relay noted it. An event that goes to several topics has one
/// for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The event's id; the first 256 bytes of a longer one.
    pub event_id: String,
    /// The slot of the relay.
    pub slot: String,
    /// The event's position in the WAL.
    pub lsn: Lsn,
    /// The time at which the relay learned the outcome, Unix milliseconds.
    pub at_ms: i64,
    /// The type of its aggregate, cut like the id. None where the record has it.
    pub aggregate_type: Option<String>,
    /// The id of its aggregate, cut like the id. None where the record has it.
    pub aggregate_id: Option<String>,
    /// The outcome.
    pub fate: Fate,
}

/// The outcome for an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fate {
    /// Kafka has its record.
    Delivered(RecordPlace),
    /// It is not sent.
    #[non_exhaustive]
    Filtered {
        /// Number of the route that drops it, from 0; none if no route takes it.
        route: Option<usize>,
    },
    /// It is a dead letter.
    #[non_exhaustive]
    Parked {
        /// The letter's record; none if only the table has the letter.
        record: Option<RecordPlace>,
        /// The error for which it was parked, at most 1,024 bytes of it.
        error: String,
        /// The topic that it should have gone to; none if unknown.
        intended_topic: Option<String>,
    },
}

/// The place of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordPlace {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset. None if the broker had forgotten it when it acknowledged the record a second
    /// time, because its first answer was lost.
    pub offset: Option<i64>,
}
