//! What a handler has been given and has not ended with: a plain struct.
//!
//! Events are handled in the order in which they came. One whose handling takes time is *open*;
//! what comes after it of its aggregate stands in a line behind it. Parts are answered for in
//! their order, whatever the order their events end in: so what they hand on reaches the
//! router in order too.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytestring::ByteString;

use crate::{
    Error, Event, Refused, TopicBatch,
    messages::{AckToken, Onward, Record},
};

/// How an event ended.
#[derive(Debug)]
pub(super) enum End {
    /// It goes on as it is.
    Forwarded,
    /// These go on; none where nothing does.
    HandedOn(Vec<Record>),
    Refused(Error),
}

/// An event whose turn it is.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub part: u64,
    pub index: usize,
    pub events: Arc<Vec<Event>>,
}

/// A part all of whose events have ended.
pub(super) struct Answer {
    pub ack: AckToken,
    pub onward: Vec<Onward>,
    pub refused: Vec<Refused>,
}

impl Answer {
    pub fn give(self) {
        self.ack.pass_on(self.onward, self.refused);
    }
}

/// Type and id of an aggregate.
type Key = (ByteString, ByteString);

/// The number of a part, and the place of an event in it.
type Place = (u64, usize);

#[derive(Default)]
pub(super) struct Lineup {
    parts: VecDeque<Part>,
    /// The number of the first of these.
    first: u64,
    /// The first event that has had no turn and is in no line.
    next: Place,
    /// Of aggregates with an open event: what waits for its end.
    lines: HashMap<Key, VecDeque<Place>>,
    /// The fronts of lines that wait no longer.
    ready: VecDeque<Place>,
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
        let ends = events.iter().map(|_| None).collect();
        self.parts.push_back(Part { ack, left: events.len(), ends, events });
    }

    /// The next event that may be handled now: it is to end, or to be opened, before the next.
    pub fn next(&mut self) -> Option<Turn> {
        if let Some(at) = self.ready.pop_front() {
            return self.turn(at);
        }
        loop {
            let (part, index) = self.next;
            let Some(turn) = self.turn(self.next) else {
                // Beyond the last event of its part, if it is not beyond the last part.
                self.parts.get(self.place(part)?)?;
                self.next = (part + 1, 0);
                continue;
            };
            self.next = (part, index + 1);
            match self.line(&turn) {
                Some(line) => line.push_back((part, index)),
                None => return Some(turn),
            }
        }
    }

    /// The event does not end at once.
    pub fn open(&mut self, turn: &Turn) {
        self.lines.entry(turn.event().aggregate()).or_default();
    }

    /// An event has ended; gives the parts that have, in order.
    pub fn end(&mut self, turn: Turn, end: End) -> Vec<Answer> {
        if let Some(line) = self.line(&turn) {
            match line.pop_front() {
                Some(next) => self.ready.push_back(next),
                None => drop(self.lines.remove(&turn.event().aggregate())),
            }
        }
        let place = self.place(turn.part);
        if let Some(part) = place.and_then(|place| self.parts.get_mut(place))
            && let Some(slot) = part.ends.get_mut(turn.index)
            && slot.replace(end).is_none()
        {
            part.left -= 1;
        }
        // The router takes the events over where nobody else has them.
        drop(turn);
        let mut answers = Vec::new();
        while self.parts.front().is_some_and(|part| part.left == 0) {
            self.first += 1;
            self.next = self.next.max((self.first, 0));
            answers.extend(self.parts.pop_front().map(Part::answer));
        }
        answers
    }

    fn turn(&self, (part, index): Place) -> Option<Turn> {
        let events = &self.parts.get(self.place(part)?)?.events;
        (index < events.len()).then(|| Turn { part, index, events: Arc::clone(events) })
    }

    /// The line behind the open event of this one's aggregate, if there is one.
    fn line(&mut self, turn: &Turn) -> Option<&mut VecDeque<Place>> {
        if self.lines.is_empty() {
            return None;
        }
        self.lines.get_mut(&turn.event().aggregate())
    }

    fn place(&self, part: u64) -> Option<usize> {
        usize::try_from(part.checked_sub(self.first)?).ok()
    }
}

impl Turn {
    pub fn event(&self) -> &Event {
        &self.events[self.index]
    }
}

impl Part {
    fn answer(self) -> Answer {
        let mut answer = Answer { ack: self.ack, onward: Vec::new(), refused: Vec::new() };
        answer.onward.reserve(self.ends.len());
        for (index, end) in self.ends.into_iter().enumerate() {
            match end {
                Some(End::Forwarded) => answer.onward.push(Onward::Event(index)),
                Some(End::HandedOn(records)) => {
                    answer.onward.extend(records.into_iter().map(Onward::from));
                }
                Some(End::Refused(error)) => answer.refused.push(Refused { index, error }),
                None => {}
            }
        }
        answer
    }
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
        let ack = AckToken::new((0, 0, part), aggregates.len(), probe().0, permit);
        let events = Arc::new(aggregates.iter().map(event).collect());
        lineup.push(TopicBatch { topic: "handler:t".into(), events, ack });
    }

    fn at(turn: &Turn) -> (u64, usize) {
        (turn.part, turn.index)
    }

    /// The next, whose handling takes time.
    fn open(lineup: &mut Lineup) -> Turn {
        let turn = lineup.next().expect("a turn");
        lineup.open(&turn);
        turn
    }

    fn done(lineup: &mut Lineup, turn: &Turn) -> usize {
        lineup.end(turn.clone(), End::Forwarded).len()
    }

    #[actix::test]
    async fn one_event_of_an_aggregate_at_a_time() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a", "a", "b"]);
        push(&mut lineup, 1, &["a"]);
        let (a, b) = (open(&mut lineup), open(&mut lineup));
        assert_eq!((at(&a), at(&b)), ((0, 0), (0, 2)));
        assert!(lineup.next().is_none(), "a's second waits for its first");
        assert_eq!(done(&mut lineup, &a), 0);
        let a = open(&mut lineup);
        assert_eq!(at(&a), (0, 1));
        assert_eq!(done(&mut lineup, &b), 0);
        assert_eq!(done(&mut lineup, &a), 1, "part 0 has ended");
        let a = lineup.next().expect("a's third");
        assert_eq!((at(&a), done(&mut lineup, &a)), ((1, 0), 1));
        assert!(lineup.lines.is_empty() && lineup.ready.is_empty());
    }

    #[actix::test]
    async fn what_ends_at_once_has_its_turns_in_the_order_it_came() {
        let mut lineup = Lineup::default();
        for part in 0..3 {
            push(&mut lineup, part, &["a", "b", "a"]);
        }
        for part in 0..3 {
            for index in 0..3 {
                let turn = lineup.next().expect("a turn");
                assert_eq!(at(&turn), (part, index));
                assert_eq!(done(&mut lineup, &turn), usize::from(index == 2));
            }
            assert!(part < 2 || lineup.next().is_none());
        }
        push(&mut lineup, 3, &["a"]);
        assert_eq!(lineup.next().map(|turn| at(&turn)), Some((3, 0)));
    }

    #[actix::test]
    async fn a_line_is_handled_in_its_order_also_where_it_then_ends_at_once() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a", "a", "b", "a"]);
        let a = open(&mut lineup);
        let b = lineup.next().expect("b");
        done(&mut lineup, &b);
        push(&mut lineup, 1, &["a"]);
        assert!(lineup.next().is_none(), "all of a's wait");
        done(&mut lineup, &a);
        let mut turns = Vec::new();
        while let Some(turn) = lineup.next() {
            turns.push(at(&turn));
            done(&mut lineup, &turn);
        }
        assert_eq!(turns, [(0, 1), (0, 3), (1, 0)]);
    }

    #[actix::test]
    async fn parts_are_answered_for_in_order_whatever_ends_first() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a"]);
        push(&mut lineup, 1, &["b"]);
        let (a, b) = (open(&mut lineup), open(&mut lineup));
        assert_eq!(done(&mut lineup, &b), 0);
        assert_eq!(done(&mut lineup, &a), 2);
    }

    #[actix::test]
    async fn an_answer_has_what_goes_on_in_the_order_of_the_events_and_names_what_is_refused() {
        let mut lineup = Lineup::default();
        push(&mut lineup, 0, &["a", "b", "c", "d"]);
        let [a, b, c, d] = [(); 4].map(|()| open(&mut lineup));
        let record = Record::of(c.event());
        assert!(lineup.end(d, End::HandedOn(Vec::new())).is_empty());
        assert!(lineup.end(c, End::HandedOn(vec![record])).is_empty());
        let error = Error::new(crate::ErrorKind::HandlerFailed, "no");
        assert!(lineup.end(b, End::Refused(error)).is_empty());
        let answer = lineup.end(a, End::Forwarded).pop().expect("an answer");
        let [Onward::Event(0), Onward::Record(record)] = &answer.onward[..] else {
            panic!("{:?}", answer.onward)
        };
        assert_eq!(record.event().aggregate_id(), "c");
        assert_eq!(answer.refused[0].index, 1);
    }
}
