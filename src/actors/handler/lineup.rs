//! What a handler has been given and has not ended with: a plain struct.
//!
//! Events of one aggregate stand in a line of their own; the front of each line may be
//! handled. Parts are answered for in their order, whatever the order their events end in:
//! so what they hand on reaches the router in order too.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{Error, Event, Refused, TopicBatch, handlers::Record, messages::AckToken};

/// How an event ended.
#[derive(Debug)]
pub(super) enum End {
    /// These go on; none where nothing does.
    HandedOn(Vec<Record>),
    Refused(Error),
}

/// An event whose turn it is.
#[derive(Debug)]
pub(super) struct Turn {
    pub part: u64,
    pub index: usize,
    pub events: Arc<Vec<Event>>,
}

/// A part all of whose events have ended.
pub(super) struct Answer {
    pub ack: AckToken,
    pub records: Vec<Record>,
    pub refused: Vec<Refused>,
}

impl Answer {
    pub fn give(self) {
        self.ack.hand_on(self.records, self.refused);
    }
}

/// Type and id of an aggregate.
type Key = (Box<str>, Box<str>);

#[derive(Default)]
pub(super) struct Lineup {
    parts: VecDeque<Part>,
    /// The number of the first of these.
    first: u64,
    lines: HashMap<Key, VecDeque<(u64, usize)>>,
    /// Aggregates none of whose events is being handled.
    ready: VecDeque<Key>,
}

struct Part {
    ack: AckToken,
    events: Arc<Vec<Event>>,
    ends: Vec<Option<End>>,
    left: usize,
}

impl Lineup {
    pub fn push(&mut self, batch: TopicBatch) {
        let TopicBatch { events, ack, .. } = batch;
        let part = self.first + self.parts.len() as u64;
        for (index, event) in events.iter().enumerate() {
            let line = self.lines.entry(key(event)).or_insert_with_key(|key| {
                self.ready.push_back(key.clone());
                VecDeque::new()
            });
            line.push_back((part, index));
        }
        let ends = events.iter().map(|_| None).collect();
        self.parts.push_back(Part { ack, left: events.len(), ends, events });
    }

    /// The next event that may be handled now.
    pub fn next(&mut self) -> Option<Turn> {
        let key = self.ready.pop_front()?;
        let &(part, index) = self.lines.get(&key)?.front()?;
        let events = Arc::clone(&self.parts.get(self.place(part)?)?.events);
        Some(Turn { part, index, events })
    }

    /// An event has ended; gives the parts that have, in order.
    pub fn end(&mut self, turn: &Turn, end: End) -> Vec<Answer> {
        if let Some(event) = turn.events.get(turn.index) {
            let key = key(event);
            let line = self.lines.get_mut(&key);
            let more = line.is_some_and(|line| {
                line.pop_front();
                !line.is_empty()
            });
            if more {
                self.ready.push_back(key);
            } else {
                self.lines.remove(&key);
            }
        }
        let place = self.place(turn.part);
        if let Some(part) = place.and_then(|place| self.parts.get_mut(place))
            && let Some(slot) = part.ends.get_mut(turn.index)
            && slot.replace(end).is_none()
        {
            part.left -= 1;
        }
        let mut answers = Vec::new();
        while self.parts.front().is_some_and(|part| part.left == 0) {
            self.first += 1;
            answers.extend(self.parts.pop_front().map(Part::answer));
        }
        answers
    }

    fn place(&self, part: u64) -> Option<usize> {
        usize::try_from(part.checked_sub(self.first)?).ok()
    }
}

impl Part {
    fn answer(self) -> Answer {
        let mut answer = Answer { ack: self.ack, records: Vec::new(), refused: Vec::new() };
        for (index, end) in self.ends.into_iter().enumerate() {
            match end {
                Some(End::HandedOn(records)) => answer.records.extend(records),
                Some(End::Refused(error)) => answer.refused.push(Refused { index, error }),
                None => {}
            }
        }
        answer
    }
}

fn key(event: &Event) -> Key {
    (event.aggregate_type().into(), event.aggregate_id().into())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{
        Lsn,
        messages::{ByteWindow, probe::probe},
        proto::OutboxEvent,
    };

    /// A part with an event of each of these aggregates.
    fn push(lineup: &mut Lineup, part: u64, aggregates: &[&str]) {
        let event = |id: &&str| {
            let wire = OutboxEvent {
                aggregate_type: "t".into(),
                aggregate_id: (*id).into(),
                ..Default::default()
            };
            Event::parse(wire.encode_to_vec().into(), Lsn::ZERO).expect("an event")
        };
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        let ack = AckToken::new((0, 0, part), probe().0, permit);
        let events = Arc::new(aggregates.iter().map(event).collect());
        lineup.push(TopicBatch { topic: "handler:t".into(), events, ack });
    }

    fn turn(lineup: &mut Lineup) -> Option<Turn> {
        lineup.next()
    }

    fn at(turn: &Turn) -> (u64, usize) {
        (turn.part, turn.index)
    }

    fn done(lineup: &mut Lineup, turn: &Turn) -> usize {
        lineup.end(turn, End::HandedOn(Vec::new())).len()
    }

    #[actix::test]
    async fn one_event_of_an_aggregate_at_a_time() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a", "a", "b"]);
        push(&mut lineup, 1, &["a"]);
        let a = turn(&mut lineup).expect("a's first");
        let b = turn(&mut lineup).expect("b's first");
        assert_eq!((at(&a), at(&b)), ((0, 0), (0, 2)));
        assert!(turn(&mut lineup).is_none(), "a's second waits for its first");
        assert_eq!(done(&mut lineup, &a), 0);
        let a = turn(&mut lineup).expect("a's second");
        assert_eq!(at(&a), (0, 1));
        assert_eq!(done(&mut lineup, &b), 0);
        assert_eq!(done(&mut lineup, &a), 1, "part 0 has ended");
        let a = turn(&mut lineup).expect("a's third");
        assert_eq!((at(&a), done(&mut lineup, &a)), ((1, 0), 1));
        assert!(lineup.lines.is_empty() && lineup.ready.is_empty());
    }

    #[actix::test]
    async fn parts_are_answered_for_in_order_whatever_ends_first() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a"]);
        push(&mut lineup, 1, &["b"]);
        let (a, b) = (turn(&mut lineup).expect("a"), turn(&mut lineup).expect("b"));
        assert_eq!(done(&mut lineup, &b), 0);
        assert_eq!(done(&mut lineup, &a), 2);
    }

    #[actix::test]
    async fn an_answer_has_records_in_the_order_of_the_events_and_names_what_is_refused() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a", "b", "c"]);
        let turns: Vec<_> = (0..3).filter_map(|_| turn(&mut lineup)).collect();
        let record = |turn: &Turn| vec![Record::of(&turn.events[turn.index])];
        assert!(lineup.end(&turns[2], End::HandedOn(record(&turns[2]))).is_empty());
        let error = Error::new(crate::ErrorKind::HandlerFailed, "no");
        assert!(lineup.end(&turns[1], End::Refused(error)).is_empty());
        let answers = lineup.end(&turns[0], End::HandedOn(record(&turns[0])));
        let ids = answers[0].records.iter().map(|record| record.event().aggregate_id());
        assert_eq!(ids.collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(answers[0].refused[0].index, 1);
    }
}
