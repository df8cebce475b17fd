//! The events of a part whose outcome is known.

use std::sync::Arc;

use super::receipt::{Fate, Receipt, RecordPlace};
use crate::{
    Error, Event,
    clock::now_ms,
    dead_letter::{kept_beginning, kept_text},
    record::Place,
    routing::Plans,
};

/// Maximum length of a receipt's error; its other texts are cut to 256 bytes. An event may have
/// texts of any length, which neither an index of PostgreSQL nor a small record takes.
const KEPT_ERROR_MAX: usize = 1_024;

/// Events of a topic part that ended, and how.
pub(crate) struct EndedPart {
    /// The topic of the records.
    pub topic: Arc<str>,
    pub events: Arc<Vec<Event>>,
    /// When their outcome was learned, Unix milliseconds.
    pub at_ms: i64,
    outcome: Outcome,
}

enum Outcome {
    /// Kafka has the records of the events that have a place.
    Sent(Vec<Option<Place>>),
    /// The dead letters are only in their table.
    Kept,
    /// The events are not sent; their plans have the route.
    Filtered(Plans),
}

impl EndedPart {
    /// Events whose records Kafka has acknowledged at these places.
    pub fn sent(topic: Arc<str>, events: Arc<Vec<Event>>, places: Vec<Option<Place>>) -> Self {
        EndedPart::new(topic, events, Outcome::Sent(places))
    }

    /// Dead letters that only their table has.
    pub fn kept(topic: Arc<str>, events: Arc<Vec<Event>>) -> Self {
        EndedPart::new(topic, events, Outcome::Kept)
    }

    /// Events that are not sent.
    pub fn filtered(events: Arc<Vec<Event>>, plans: Plans) -> Self {
        EndedPart::new("".into(), events, Outcome::Filtered(plans))
    }

    fn new(topic: Arc<str>, events: Arc<Vec<Event>>, outcome: Outcome) -> Self {
        let at_ms = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        EndedPart { topic, events, at_ms, outcome }
    }

    /// True if no event has ended.
    pub fn is_empty(&self) -> bool {
        matches!(&self.outcome, Outcome::Sent(places) if places.iter().all(Option::is_none))
    }

    pub fn is_filtered(&self) -> bool {
        matches!(self.outcome, Outcome::Filtered(_))
    }

    /// The event at `index`, and where its record is; none if it has not ended, or has no id to
    /// find its receipt by.
    pub fn ended(&self, index: usize) -> Option<(&Event, Option<Place>)> {
        let event = self.events.get(index).filter(|event| !event.id().is_empty())?;
        match &self.outcome {
            Outcome::Sent(places) => Some((event, Some((*places.get(index)?)?))),
            Outcome::Kept | Outcome::Filtered(_) => Some((event, None)),
        }
    }

    /// Number of the route that drops the event at `index`; none if no route takes it.
    pub fn route(&self, index: usize) -> Option<usize> {
        match &self.outcome {
            Outcome::Filtered(plans) => plans.of(index)?.route(),
            Outcome::Sent(_) | Outcome::Kept => None,
        }
    }

    /// The receipts, in the order of the events.
    pub fn receipts<'a>(&'a self, slot: &'a str) -> impl Iterator<Item = Receipt> + 'a {
        (0..self.events.len()).filter_map(move |index| {
            let (event, place) = self.ended(index)?;
            let record = place.map(|Place { partition, offset }| RecordPlace {
                topic: self.topic.to_string(),
                partition,
                offset,
            });
            let fate = match (event.refusal(), record) {
                (Some(refusal), record) => Fate::Parked {
                    record,
                    error: kept_error(&refusal.error),
                    intended_topic: refusal.topic.as_deref().map(kept_text),
                },
                (None, Some(record)) => Fate::Delivered(record),
                (None, None) => Fate::Filtered { route: self.route(index) },
            };
            Some(Receipt {
                event_id: kept_text(event.id()),
                slot: slot.to_owned(),
                lsn: event.lsn(),
                at_ms: self.at_ms,
                aggregate_type: Some(kept_text(event.aggregate_type())),
                aggregate_id: Some(kept_text(event.aggregate_id())),
                fate,
            })
        })
    }
}

/// The error as a receipt has it.
pub(super) fn kept_error(error: &Error) -> String {
    kept_beginning(&error.to_string(), KEPT_ERROR_MAX)
}
