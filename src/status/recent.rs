//! Keeps the last events, errors and dead letters for the status page.
//!
//! Payloads are never kept. Texts are cut, and events at a high rate are only sampled, so that the
//! cost can't be measured.

use std::{collections::VecDeque, sync::PoisonError};

use serde::Serialize;

use super::Status;
use crate::{Error, Event, Lsn, clock::now_ms};

/// Number of events that are kept.
const MAX_EVENTS: usize = 50;
/// Number of errors, and of dead letters, that are kept.
const MAX_ERRORS: usize = 20;
/// At most `MAX_EVENTS` events are taken per this interval.
const SAMPLE_MS: u64 = 100;
/// Longest name that is kept whole: the application chooses names of any length.
const MAX_NAME_CHARS: usize = 120;
/// Longest error that is kept whole: errors quote servers.
const MAX_ERROR_CHARS: usize = 600;

/// The last events, errors and dead letters, oldest first.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Recent {
    pub events: VecDeque<RecentEvent>,
    pub errors: VecDeque<RecentError>,
    pub dead_letters: VecDeque<RecentDeadLetter>,
    /// Begin of the present sampling interval, and number of events taken in it.
    #[serde(skip)]
    sample: (u64, usize),
}

/// An event on its way to its topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecentEvent {
    /// Time of routing, Unix milliseconds.
    pub at_ms: u64,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    pub topic: String,
    pub lsn: Lsn,
}

/// An error and how often it occurred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecentError {
    /// Last occurrence, Unix milliseconds.
    pub at_ms: u64,
    /// First occurrence, Unix milliseconds.
    pub first_ms: u64,
    pub count: u64,
    /// `relay`, `kafka`, or the topic.
    pub place: String,
    pub error: String,
}

/// An event that became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecentDeadLetter {
    /// Time, Unix milliseconds.
    pub at_ms: u64,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    /// The topic that refused it; none if it was refused earlier.
    pub topic: Option<String>,
    pub lsn: Lsn,
    pub error: String,
}

impl Recent {
    /// Adds events that were routed to a topic.
    pub fn routed(&mut self, topic: &str, events: &[Event], at_ms: u64) {
        let (began, taken) = &mut self.sample;
        if at_ms.saturating_sub(*began) >= SAMPLE_MS {
            (*began, *taken) = (at_ms, 0);
        }
        let count = events.len().min(MAX_EVENTS - *taken);
        *taken += count;
        for event in &events[events.len() - count..] {
            let event = RecentEvent {
                at_ms,
                aggregate_type: shorten(event.aggregate_type(), MAX_NAME_CHARS),
                aggregate_id: shorten(event.aggregate_id(), MAX_NAME_CHARS),
                event_type: shorten(event.event_type(), MAX_NAME_CHARS),
                topic: topic.to_owned(),
                lsn: event.lsn(),
            };
            keep(&mut self.events, event, MAX_EVENTS);
        }
    }

    /// Adds an error.
    pub fn failed(&mut self, place: &str, error: &str, at_ms: u64) {
        let error = shorten(error, MAX_ERROR_CHARS);
        let same = |other: &RecentError| other.place == place && is_alike(&other.error, &error);
        let known = self.errors.iter().position(same).and_then(|at| self.errors.remove(at));
        let (first_ms, count) = known.map_or((at_ms, 1), |known| (known.first_ms, known.count + 1));
        let place = place.to_owned();
        keep(&mut self.errors, RecentError { at_ms, first_ms, count, place, error }, MAX_ERRORS);
    }

    /// Adds a dead letter.
    pub fn parked(&mut self, event: &Event, topic: Option<&str>, error: &Error, at_ms: u64) {
        let letter = RecentDeadLetter {
            at_ms,
            aggregate_type: shorten(event.aggregate_type(), MAX_NAME_CHARS),
            aggregate_id: shorten(event.aggregate_id(), MAX_NAME_CHARS),
            event_type: shorten(event.event_type(), MAX_NAME_CHARS),
            topic: topic.map(str::to_owned),
            lsn: event.lsn(),
            error: shorten(&error.to_string(), MAX_ERROR_CHARS),
        };
        keep(&mut self.dead_letters, letter, MAX_ERRORS);
    }
}

impl Status {
    /// Returns a copy of the last events, errors and dead letters.
    pub fn recent(&self) -> Recent {
        self.with_recent(|recent| recent.clone())
    }

    /// Notes events that were routed to a topic or a handler.
    pub fn routed(&self, topic: &str, events: &[Event]) {
        self.with_recent(|recent| recent.routed(topic, events, now_ms()));
    }

    pub(super) fn failed(&self, place: &str, error: &str) {
        self.with_recent(|recent| recent.failed(place, error, now_ms()));
    }

    /// Notes a dead letter's event, and the topic that refused it.
    pub fn parked(&self, event: &Event, topic: Option<&str>, error: &Error) {
        self.with_recent(|recent| recent.parked(event, topic, error, now_ms()));
    }

    fn with_recent<T>(&self, look: impl FnOnce(&mut Recent) -> T) -> T {
        look(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn keep<T>(ring: &mut VecDeque<T>, entry: T, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(entry);
}

fn shorten(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// True if two errors differ only in numbers, or in the details of an attempt.
fn is_alike(one: &str, other: &str) -> bool {
    let words = |text: &str| -> String {
        let text = text.split(" (after ").next().unwrap_or_default();
        text.chars().filter(|c| !c.is_ascii_digit()).collect()
    };
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::OutboxEvent;

    fn events(count: usize) -> Vec<Event> {
        let event = |number: usize| {
            let fact = OutboxEvent {
                aggregate_type: "user".into(),
                aggregate_id: number.to_string(),
                event_type: "x".repeat(2 * MAX_NAME_CHARS),
                payload: "secret".into(),
                ..OutboxEvent::default()
            };
            Event::parse(fact.encode_to_vec().into(), Lsn::new(number as u64)).expect("an event")
        };
        (0..count).map(event).collect()
    }

    fn ids(recent: &Recent) -> Vec<String> {
        recent.events.iter().map(|event| event.aggregate_id.clone()).collect()
    }

    #[test]
    fn the_last_events_are_kept_and_no_payload() {
        let mut recent = Recent::default();
        recent.routed("shop.user", &events(60), 1_000);
        let expected: Vec<_> = (10..60).map(|id| id.to_string()).collect();
        assert_eq!(ids(&recent), expected);
        let text = serde_json::to_string(&recent).expect("plain data");
        assert!(!text.contains("secret"), "{text}");
        assert!(text.len() < 50 * 400, "{}", text.len());
    }

    #[test]
    fn a_high_rate_is_sampled_and_a_low_one_is_not() {
        let mut recent = Recent::default();
        recent.routed("t", &events(MAX_EVENTS), 1_000);
        recent.routed("t", &events(1), 1_050);
        assert_eq!(ids(&recent)[0], "0", "the sample is full");
        assert_eq!(recent.events.len(), MAX_EVENTS);
        recent.routed("t", &events(1), 1_000 + SAMPLE_MS);
        assert_eq!((ids(&recent)[0].as_str(), ids(&recent)[MAX_EVENTS - 1].as_str()), ("1", "0"));
    }

    #[test]
    fn a_repeated_error_is_one_entry() {
        let mut recent = Recent::default();
        recent.failed("kafka", "broker 5 refused (after 5 ms)", 10);
        recent.failed("shop.user", "no leader", 20);
        recent.failed("kafka", "broker 7 refused (after 1 ms, 2 identical)", 30);
        let last = recent.errors.back().expect("an error");
        assert_eq!((last.first_ms, last.at_ms, last.count), (10, 30, 2));
        assert!(last.error.starts_with("broker 7"), "{last:?}");
        assert_eq!(recent.errors.len(), 2);
        recent.failed("kafka", &"ä".repeat(1_000), 40);
        assert_eq!(
            recent.errors.back().map(|e| e.error.chars().count()),
            Some(MAX_ERROR_CHARS + 1)
        );
    }
}
