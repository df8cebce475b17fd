//! What happened last: a few events, errors and dead letters, for the status page.
//!
//! Never a payload. Texts are cut, and what comes at a high rate is a sample, so that
//! looking costs the pipeline nothing that a benchmark can see.

use std::{collections::VecDeque, sync::PoisonError};

use serde::Serialize;

use super::Status;
use crate::{Error, Event, Lsn, clock::now_ms};

/// Events that are kept.
const EVENTS: usize = 50;
/// Errors, and dead letters, that are kept.
const TROUBLES: usize = 20;
/// As many events as are kept are taken in so long, and no more.
const SAMPLE_MS: u64 = 100;
/// Names are the application's, and so may be of any length.
const LONGEST_NAME: usize = 120;
/// Errors quote servers.
const LONGEST_ERROR: usize = 600;

/// The last ones of each, oldest first.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Recent {
    pub events: VecDeque<RecentEvent>,
    pub errors: VecDeque<RecentError>,
    pub dead_letters: VecDeque<RecentDeadLetter>,
    /// When the present sample began, and how much of it is taken.
    #[serde(skip)]
    sample: (u64, usize),
}

/// An event on its way to its topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecentEvent {
    /// When it was routed, Unix milliseconds.
    pub at_ms: u64,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    pub topic: String,
    pub lsn: Lsn,
}

/// An error, as often as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecentError {
    /// When it came last, and first, Unix milliseconds.
    pub at_ms: u64,
    pub first_ms: u64,
    pub count: u64,
    /// `relay`, `kafka`, or the topic.
    pub place: String,
    pub error: String,
}

/// An event that was parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecentDeadLetter {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    /// The topic that it was refused by, if it came that far.
    pub topic: Option<String>,
    pub lsn: Lsn,
    pub error: String,
}

impl Recent {
    /// Events were routed to a topic.
    pub fn routed(&mut self, topic: &str, events: &[Event], at_ms: u64) {
        let (began, taken) = &mut self.sample;
        if at_ms.saturating_sub(*began) >= SAMPLE_MS {
            (*began, *taken) = (at_ms, 0);
        }
        let count = events.len().min(EVENTS - *taken);
        *taken += count;
        for event in &events[events.len() - count..] {
            let event = RecentEvent {
                at_ms,
                aggregate_type: shorten(event.aggregate_type(), LONGEST_NAME),
                aggregate_id: shorten(event.aggregate_id(), LONGEST_NAME),
                event_type: shorten(event.event_type(), LONGEST_NAME),
                topic: topic.to_owned(),
                lsn: event.lsn(),
            };
            keep(&mut self.events, event, EVENTS);
        }
    }

    /// Something failed.
    pub fn failed(&mut self, place: &str, error: &str, at_ms: u64) {
        let error = shorten(error, LONGEST_ERROR);
        let same = |other: &RecentError| other.place == place && is_alike(&other.error, &error);
        let known = self.errors.iter().position(same).and_then(|at| self.errors.remove(at));
        let (first_ms, count) = known.map_or((at_ms, 1), |known| (known.first_ms, known.count + 1));
        let place = place.to_owned();
        keep(&mut self.errors, RecentError { at_ms, first_ms, count, place, error }, TROUBLES);
    }

    /// An event was parked.
    pub fn parked(&mut self, event: &Event, topic: Option<&str>, error: &Error, at_ms: u64) {
        let letter = RecentDeadLetter {
            at_ms,
            aggregate_type: shorten(event.aggregate_type(), LONGEST_NAME),
            aggregate_id: shorten(event.aggregate_id(), LONGEST_NAME),
            event_type: shorten(event.event_type(), LONGEST_NAME),
            topic: topic.map(str::to_owned),
            lsn: event.lsn(),
            error: shorten(&error.to_string(), LONGEST_ERROR),
        };
        keep(&mut self.dead_letters, letter, TROUBLES);
    }
}

impl Status {
    /// What happened last.
    pub fn recent(&self) -> Recent {
        self.with_recent(|recent| recent.clone())
    }

    /// Events go to a topic, or to a handler.
    pub fn routed(&self, topic: &str, events: &[Event]) {
        self.with_recent(|recent| recent.routed(topic, events, now_ms()));
    }

    pub(super) fn failed(&self, place: &str, error: &str) {
        self.with_recent(|recent| recent.failed(place, error, now_ms()));
    }

    /// The event of a dead letter, and the topic that it was refused by.
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

/// The same but for numbers, and for what librdkafka says of a try: how long it took, and
/// how many it kept to itself.
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
                event_type: "x".repeat(2 * LONGEST_NAME),
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
        recent.routed("t", &events(EVENTS), 1_000);
        recent.routed("t", &events(1), 1_050);
        assert_eq!(ids(&recent)[0], "0", "the sample is full");
        assert_eq!(recent.events.len(), EVENTS);
        recent.routed("t", &events(1), 1_000 + SAMPLE_MS);
        assert_eq!((ids(&recent)[0].as_str(), ids(&recent)[EVENTS - 1].as_str()), ("1", "0"));
    }

    #[test]
    fn an_error_that_comes_again_is_one_entry() {
        let mut recent = Recent::default();
        recent.failed("kafka", "broker 5 refused (after 5 ms)", 10);
        recent.failed("shop.user", "no leader", 20);
        recent.failed("kafka", "broker 7 refused (after 1 ms, 2 identical)", 30);
        let last = recent.errors.back().expect("an error");
        assert_eq!((last.first_ms, last.at_ms, last.count), (10, 30, 2));
        assert!(last.error.starts_with("broker 7"), "{last:?}");
        assert_eq!(recent.errors.len(), 2);
        recent.failed("kafka", &"ä".repeat(1_000), 40);
        assert_eq!(recent.errors.back().map(|e| e.error.chars().count()), Some(LONGEST_ERROR + 1));
    }
}
