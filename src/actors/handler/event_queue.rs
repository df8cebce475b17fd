//! Events that a handler has not ended with yet: a plain struct.
//!
//! Events are handled in the order in which they came. One whose handling takes time is *open*;
//! later events of its aggregate wait behind it. Parts are answered for in their order, whatever
//! the order in which their events end: so the output of the handler reaches the router in order.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytestring::ByteString;

use crate::{
    Error, Event, Refused, TopicBatch,
    messages::{AckToken, HandlerOutput, Record},
};

/// The end of one event.
#[derive(Debug)]
pub(super) enum EventEnd {
    /// It is sent unchanged.
    Forwarded,
    /// These records are sent in its place, which may be none.
    Replaced(Vec<Record>),
    Refused(Error),
}

/// An event that may be handled now.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub part: u64,
    pub index: usize,
    pub events: Arc<Vec<Event>>,
}

/// A part all of whose events have ended.
pub(super) struct Answer {
    pub ack: AckToken,
    pub output: Vec<HandlerOutput>,
    pub refused: Vec<Refused>,
}

impl Answer {
    pub fn give(self) {
        self.ack.forward(self.output, self.refused);
    }
}

/// Type and id of an aggregate.
type Key = (ByteString, ByteString);

/// The number of a part, and the index of an event in it.
type EventPosition = (u64, usize);

#[derive(Default)]
pub(super) struct EventQueue {
    parts: VecDeque<QueuedPart>,
    /// The number of the first of these.
    first: u64,
    /// The first event that has had no turn and does not wait behind an open one.
    next: EventPosition,
    /// For each aggregate with an open event, the events that wait for its end.
    waiting: HashMap<Key, VecDeque<EventPosition>>,
    /// Events that waited and may be handled now.
    ready: VecDeque<EventPosition>,
}

struct QueuedPart {
    ack: AckToken,
    events: Arc<Vec<Event>>,
    ends: Vec<Option<EventEnd>>,
    left: usize,
}

impl EventQueue {
    pub fn push(&mut self, batch: TopicBatch) {
        let TopicBatch { events, ack, .. } = batch;
        let ends = events.iter().map(|_| None).collect();
        self.parts.push_back(QueuedPart { ack, left: events.len(), ends, events });
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
                self.parts.get(self.index_of(part)?)?;
                self.next = (part + 1, 0);
                continue;
            };
            self.next = (part, index + 1);
            match self.waiting_behind(&turn) {
                Some(line) => line.push_back((part, index)),
                None => return Some(turn),
            }
        }
    }

    /// Marks an event that does not end at once.
    pub fn open(&mut self, turn: &Turn) {
        self.waiting.entry(turn.event().aggregate()).or_default();
    }

    /// Ends an event. Gives the parts that have ended with it, in order.
    pub fn end(&mut self, turn: Turn, end: EventEnd) -> Vec<Answer> {
        if let Some(line) = self.waiting_behind(&turn) {
            match line.pop_front() {
                Some(next) => self.ready.push_back(next),
                None => drop(self.waiting.remove(&turn.event().aggregate())),
            }
        }
        let index = self.index_of(turn.part);
        if let Some(part) = index.and_then(|index| self.parts.get_mut(index))
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
            answers.extend(self.parts.pop_front().map(QueuedPart::answer));
        }
        answers
    }

    fn turn(&self, (part, index): EventPosition) -> Option<Turn> {
        let events = &self.parts.get(self.index_of(part)?)?.events;
        (index < events.len()).then(|| Turn { part, index, events: Arc::clone(events) })
    }

    /// The events that wait behind the open event of this one's aggregate, if there is one.
    fn waiting_behind(&mut self, turn: &Turn) -> Option<&mut VecDeque<EventPosition>> {
        if self.waiting.is_empty() {
            return None;
        }
        self.waiting.get_mut(&turn.event().aggregate())
    }

    fn index_of(&self, part: u64) -> Option<usize> {
        usize::try_from(part.checked_sub(self.first)?).ok()
    }
}

impl Turn {
    pub fn event(&self) -> &Event {
        &self.events[self.index]
    }
}

impl QueuedPart {
    fn answer(self) -> Answer {
        let mut answer = Answer { ack: self.ack, output: Vec::new(), refused: Vec::new() };
        answer.output.reserve(self.ends.len());
        for (index, end) in self.ends.into_iter().enumerate() {
            match end {
                Some(EventEnd::Forwarded) => answer.output.push(HandlerOutput::Event(index)),
                Some(EventEnd::Replaced(records)) => {
                    answer.output.extend(records.into_iter().map(HandlerOutput::from));
                }
                Some(EventEnd::Refused(error)) => answer.refused.push(Refused { index, error }),
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
    fn push(queue: &mut EventQueue, part: u64, aggregates: &[&str]) {
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
        queue.push(TopicBatch { topic: "handler:t".into(), events, ack });
    }

    fn at(turn: &Turn) -> (u64, usize) {
        (turn.part, turn.index)
    }

    /// The next, whose handling takes time.
    fn open(queue: &mut EventQueue) -> Turn {
        let turn = queue.next().expect("a turn");
        queue.open(&turn);
        turn
    }

    fn done(queue: &mut EventQueue, turn: &Turn) -> usize {
        queue.end(turn.clone(), EventEnd::Forwarded).len()
    }

    #[actix::test]
    async fn one_event_of_an_aggregate_at_a_time() {
        let mut queue = EventQueue::default();
        push(&mut queue, 0, &["a", "a", "b"]);
        push(&mut queue, 1, &["a"]);
        let (a, b) = (open(&mut queue), open(&mut queue));
        assert_eq!((at(&a), at(&b)), ((0, 0), (0, 2)));
        assert!(queue.next().is_none(), "a's second waits for its first");
        assert_eq!(done(&mut queue, &a), 0);
        let a = open(&mut queue);
        assert_eq!(at(&a), (0, 1));
        assert_eq!(done(&mut queue, &b), 0);
        assert_eq!(done(&mut queue, &a), 1, "part 0 has ended");
        let a = queue.next().expect("a's third");
        assert_eq!((at(&a), done(&mut queue, &a)), ((1, 0), 1));
        assert!(queue.waiting.is_empty() && queue.ready.is_empty());
    }

    #[actix::test]
    async fn what_ends_at_once_has_its_turns_in_the_order_it_came() {
        let mut queue = EventQueue::default();
        for part in 0..3 {
            push(&mut queue, part, &["a", "b", "a"]);
        }
        for part in 0..3 {
            for index in 0..3 {
                let turn = queue.next().expect("a turn");
                assert_eq!(at(&turn), (part, index));
                assert_eq!(done(&mut queue, &turn), usize::from(index == 2));
            }
            assert!(part < 2 || queue.next().is_none());
        }
        push(&mut queue, 3, &["a"]);
        assert_eq!(queue.next().map(|turn| at(&turn)), Some((3, 0)));
    }

    #[actix::test]
    async fn a_line_is_handled_in_its_order_also_where_it_then_ends_at_once() {
        let mut queue = EventQueue::default();
        push(&mut queue, 0, &["a", "a", "b", "a"]);
        let a = open(&mut queue);
        let b = queue.next().expect("b");
        done(&mut queue, &b);
        push(&mut queue, 1, &["a"]);
        assert!(queue.next().is_none(), "all of a's wait");
        done(&mut queue, &a);
        let mut turns = Vec::new();
        while let Some(turn) = queue.next() {
            turns.push(at(&turn));
            done(&mut queue, &turn);
        }
        assert_eq!(turns, [(0, 1), (0, 3), (1, 0)]);
    }

    #[actix::test]
    async fn parts_are_answered_for_in_order_whatever_ends_first() {
        let mut queue = EventQueue::default();
        push(&mut queue, 0, &["a"]);
        push(&mut queue, 1, &["b"]);
        let (a, b) = (open(&mut queue), open(&mut queue));
        assert_eq!(done(&mut queue, &b), 0);
        assert_eq!(done(&mut queue, &a), 2);
    }

    #[actix::test]
    async fn an_answer_has_what_goes_on_in_the_order_of_the_events_and_names_what_is_refused() {
        let mut queue = EventQueue::default();
        push(&mut queue, 0, &["a", "b", "c", "d"]);
        let [a, b, c, d] = [(); 4].map(|()| open(&mut queue));
        let record = Record::of(c.event());
        assert!(queue.end(d, EventEnd::Replaced(Vec::new())).is_empty());
        assert!(queue.end(c, EventEnd::Replaced(vec![record])).is_empty());
        let error = Error::new(crate::ErrorKind::HandlerFailed, "no");
        assert!(queue.end(b, EventEnd::Refused(error)).is_empty());
        let answer = queue.end(a, EventEnd::Forwarded).pop().expect("an answer");
        let [HandlerOutput::Event(0), HandlerOutput::Record(record)] = &answer.output[..] else {
            panic!("{:?}", answer.output)
        };
        assert_eq!(record.event().aggregate_id(), "c");
        assert_eq!(answer.refused[0].index, 1);
    }
}
