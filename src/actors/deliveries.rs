//! What the router has handed out and not got an answer for: a plain struct.
//!
//! Two views of the same parts: by batch, to know when a batch is done, and by
//! lane, to hand everything out again, in order, when a lane was reopened.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::Recipient;

use super::handing_on::Rest;
use crate::{
    Error, ErrorKind, Event, Lsn,
    handlers::Onward,
    messages::{BatchDone, BatchId, PartDone, Refused, TopicBatch, WindowPermit},
};

/// Lanes, their outstanding parts, and the batches these belong to.
#[derive(Default)]
pub(crate) struct Deliveries {
    block: bool,
    /// Topics to which nothing more is sent for now.
    paused: HashSet<Arc<str>>,
    lanes: Vec<Lane>,
    by_topic: HashMap<Arc<str>, usize>,
    batches: HashMap<BatchId, OpenBatch>,
}

struct Lane {
    topic: Arc<str>,
    epoch: u32,
    /// Openings in a row that delivered nothing.
    failures: u32,
    /// None while it is being opened.
    recipient: Option<Recipient<TopicBatch>>,
    next_part: u64,
    /// The first part of which events were refused: what is behind it goes out after
    /// it, not with it.
    blocked: Option<u64>,
    outstanding: VecDeque<Part>,
}

struct Part {
    number: u64,
    batch: BatchId,
    events: Arc<Vec<Event>>,
    permit: WindowPermit,
    since: Instant,
    /// The epoch it was last sent in, if its token is still out.
    sent_in: Option<u32>,
}

struct OpenBatch {
    parts: usize,
    events: usize,
    commit_end_lsn: Option<Lsn>,
}

/// One part to send: make its token and hand it to the recipient.
pub(crate) struct Dispatch {
    pub recipient: Recipient<TopicBatch>,
    pub topic: Arc<str>,
    pub events: Arc<Vec<Event>>,
    pub permit: WindowPermit,
    pub lane: usize,
    pub epoch: u32,
    pub part: u64,
}

/// What the end of a part led to.
#[derive(Debug)]
pub(crate) enum PartEnd {
    /// The token speaks for a part that is done or went out again.
    Stale,
    /// The part is done; its batch is not.
    Part { lane: usize, events: usize, took: Duration },
    /// The part was its batch's last.
    Batch { lane: usize, events: usize, took: Duration, done: BatchDone },
    /// The part is done but for what its token handed back: the batch waits for where
    /// that goes instead, see [`Deliveries::split`].
    HandedOn { events: usize, delivered: usize, took: Duration, rest: Rest },
    /// The part failed; so does its lane, unless it was closed already.
    Failed(Error),
}

/// A lane that has to be opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub lane: usize,
    pub topic: Arc<str>,
    pub epoch: u32,
    pub failures: u32,
}

impl Deliveries {
    /// With `block`, refused events stay where they are, and what is behind them waits.
    pub fn new(block: bool, paused: HashSet<Arc<str>>) -> Self {
        Deliveries { block, paused, ..Deliveries::default() }
    }

    /// The lane of a topic; a new one has to be opened.
    pub fn lane(&mut self, topic: &Arc<str>) -> (usize, Option<Opening>) {
        if let Some(&lane) = self.by_topic.get(topic) {
            return (lane, None);
        }
        let lane = self.lanes.len();
        self.by_topic.insert(Arc::clone(topic), lane);
        self.lanes.push(Lane {
            topic: Arc::clone(topic),
            epoch: 0,
            failures: 0,
            recipient: None,
            next_part: 0,
            blocked: None,
            outstanding: VecDeque::new(),
        });
        (lane, Some(self.opening(lane)))
    }

    /// Notes a batch that was cut into `parts` parts, before they are added.
    pub fn open_batch(
        &mut self,
        id: BatchId,
        parts: usize,
        events: usize,
        commit_end_lsn: Option<Lsn>,
    ) {
        self.batches.insert(id, OpenBatch { parts, events, commit_end_lsn });
    }

    /// Adds a part behind the others of its lane; it is sent now if the lane is open.
    pub fn add(
        &mut self,
        lane: usize,
        batch: BatchId,
        events: Vec<Event>,
        permit: WindowPermit,
    ) -> Option<Dispatch> {
        let slot = self.lanes.get_mut(lane)?;
        let number = slot.next_part;
        slot.next_part += 1;
        let events = Arc::new(events);
        let since = Instant::now();
        slot.outstanding.push_back(Part { number, batch, events, permit, since, sent_in: None });
        if slot.blocked.is_some() || self.paused.contains(&slot.topic) {
            return None;
        }
        let recipient = slot.recipient.clone()?;
        slot.outstanding
            .back_mut()
            .map(|part| part.dispatch(lane, &slot.topic, slot.epoch, recipient))
    }

    /// A token's answer.
    pub fn finish(&mut self, done: PartDone) -> PartEnd {
        let Some(lane) = self.lanes.get_mut(done.lane) else { return PartEnd::Stale };
        // Parts mostly end in order, so the first look hits.
        let position = lane
            .outstanding
            .iter()
            .position(|part| part.number == done.part && part.sent_in == Some(done.epoch));
        let Some(position) = position else { return PartEnd::Stale };
        let Some(part) = lane.outstanding.get_mut(position) else { return PartEnd::Stale };
        let refused = match done.result {
            Ok(refused) => part.pick(refused),
            Err(error) => {
                part.sent_in = None;
                return PartEnd::Failed(error);
            }
        };
        if let (true, Some((_, error))) = (self.block, refused.first()) {
            let blocked = Error::new(ErrorKind::RecordBlocked, "a refused record blocks its topic");
            let blocked = blocked.caused_by(error.clone());
            // Records that would go on come again with the part, whole.
            if done.onward.is_empty() {
                part.events = Arc::new(refused.into_iter().map(|(event, _)| event).collect());
            }
            part.sent_in = None;
            lane.blocked = Some(lane.blocked.unwrap_or(u64::MAX).min(done.part));
            return PartEnd::Failed(blocked);
        }
        let Some(part) = lane.outstanding.remove(position) else { return PartEnd::Stale };
        lane.failures = 0;
        let (events, took) = (part.events.len(), part.since.elapsed());
        if !refused.is_empty() || !done.onward.is_empty() {
            let (lane, onward) = (done.lane, done.onward);
            let delivered = events.saturating_sub(refused.len() + part.go_on(&onward));
            let Part { batch, events: all, permit, .. } = part;
            let rest = Rest { lane, refused, onward, events: all, batch, permit };
            return PartEnd::HandedOn { events, delivered, took, rest };
        }
        let Some(batch) = self.batches.get_mut(&part.batch) else { return PartEnd::Stale };
        batch.parts -= 1;
        if batch.parts > 0 {
            return PartEnd::Part { lane: done.lane, events, took };
        }
        let (commit_end_lsn, all) = (batch.commit_end_lsn, batch.events);
        self.batches.remove(&part.batch);
        let done_batch = BatchDone { id: part.batch, commit_end_lsn, events: all };
        PartEnd::Batch { lane: done.lane, events, took, done: done_batch }
    }

    /// So many parts, which are added next, are in the place of one of the batch's.
    ///
    /// Into none, where none of what a handler handed on is sent: the batch may be done then.
    pub fn split(&mut self, id: BatchId, parts: usize) -> Option<BatchDone> {
        let batch = self.batches.get_mut(&id)?;
        batch.parts = (batch.parts + parts).saturating_sub(1);
        if batch.parts > 0 {
            return None;
        }
        let OpenBatch { events, commit_end_lsn, .. } = self.batches.remove(&id)?;
        Some(BatchDone { id, commit_end_lsn, events })
    }

    /// Holds back what is for a topic, or sends what was held back, in order.
    pub fn pause(&mut self, topic: &Arc<str>, paused: bool) -> Vec<Dispatch> {
        if paused {
            self.paused.insert(Arc::clone(topic));
            return Vec::new();
        }
        self.paused.remove(topic);
        let Some(&lane) = self.by_topic.get(topic) else { return Vec::new() };
        self.send_waiting(lane)
    }

    /// What was not sent since the lane was opened.
    fn send_waiting(&mut self, lane: usize) -> Vec<Dispatch> {
        let Some(slot) = self.lanes.get_mut(lane) else { return Vec::new() };
        if self.paused.contains(&slot.topic) {
            return Vec::new();
        }
        let Some(recipient) = slot.recipient.clone() else { return Vec::new() };
        let last = slot.blocked.unwrap_or(u64::MAX);
        let (topic, epoch) = (&slot.topic, slot.epoch);
        slot.outstanding
            .iter_mut()
            .take_while(|part| part.number <= last)
            .filter(|part| part.sent_in != Some(epoch))
            .map(|part| part.dispatch(lane, topic, epoch, recipient.clone()))
            .collect()
    }

    /// Closes the lane if `epoch` is its present one: it then has to be opened again.
    pub fn close(&mut self, lane: usize, epoch: u32) -> Option<Opening> {
        let slot = self.lanes.get_mut(lane).filter(|slot| slot.epoch == epoch)?;
        slot.recipient = None;
        slot.epoch += 1;
        slot.failures += 1;
        Some(self.opening(lane))
    }

    /// Opens the lane, if `epoch` is its present one: all it keeps goes out, in order.
    pub fn opened(
        &mut self,
        lane: usize,
        epoch: u32,
        recipient: Recipient<TopicBatch>,
    ) -> Vec<Dispatch> {
        let Some(slot) = self.lanes.get_mut(lane).filter(|slot| slot.epoch == epoch) else {
            return Vec::new();
        };
        slot.recipient = Some(recipient);
        self.send_waiting(lane)
    }

    /// What waited for a refused part that has gone through: it goes out now, in order.
    pub fn released(&mut self, lane: usize) -> Vec<Dispatch> {
        let Some(slot) = self.lanes.get_mut(lane) else { return Vec::new() };
        let waits = |last| slot.outstanding.front().is_some_and(|part| part.number <= last);
        let Some(last) = slot.blocked.filter(|_| slot.recipient.is_some()) else {
            return Vec::new();
        };
        if waits(last) {
            return Vec::new();
        }
        slot.blocked = None;
        self.send_waiting(lane)
    }

    /// The name of a lane's topic.
    pub fn topic(&self, lane: usize) -> Option<&Arc<str>> {
        self.lanes.get(lane).map(|lane| &lane.topic)
    }

    fn opening(&self, lane: usize) -> Opening {
        let slot = &self.lanes[lane];
        let topic = Arc::clone(&slot.topic);
        Opening { lane, topic, epoch: slot.epoch, failures: slot.failures }
    }
}

impl Part {
    /// The events that were refused, with their errors.
    fn pick(&self, refused: Vec<Refused>) -> Vec<(Event, Error)> {
        let event = |index: usize| self.events.get(index).cloned();
        refused.into_iter().filter_map(|r| Some((event(r.index)?, r.error))).collect()
    }

    /// How many events go on, in whatever form: records of one follow each other.
    fn go_on(&self, onward: &[Onward]) -> usize {
        let of = |one: &Onward| match one {
            Onward::Event(index) => self.events.get(*index).map(Event::lsn),
            Onward::Record(record) => Some(record.event().lsn()),
        };
        onward.chunk_by(|one, next| of(one) == of(next)).count()
    }

    fn dispatch(
        &mut self,
        lane: usize,
        topic: &Arc<str>,
        epoch: u32,
        recipient: Recipient<TopicBatch>,
    ) -> Dispatch {
        self.sent_in = Some(epoch);
        Dispatch {
            recipient,
            topic: Arc::clone(topic),
            events: Arc::clone(&self.events),
            permit: self.permit.clone(),
            lane,
            epoch,
            part: self.number,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{
        ErrorKind,
        handlers::Record,
        messages::{ByteWindow, probe::probe},
        proto::OutboxEvent,
    };

    const A: usize = 0;
    const B: usize = 1;

    /// Deliveries with two lanes that wait to be opened.
    fn deliveries() -> Deliveries {
        let mut deliveries = Deliveries::default();
        for (lane, topic) in [(A, "a"), (B, "b")] {
            let topic: Arc<str> = topic.into();
            let opening = Opening { lane, topic: Arc::clone(&topic), epoch: 0, failures: 0 };
            assert_eq!(deliveries.lane(&topic), (lane, Some(opening)));
            assert_eq!(deliveries.lane(&topic), (lane, None), "opened once");
        }
        deliveries
    }

    fn id(seq: u64) -> BatchId {
        BatchId { generation: 1, seq }
    }

    fn events(count: usize) -> Vec<Event> {
        let raw = OutboxEvent { aggregate_type: "t".into(), ..Default::default() };
        let event = Event::parse(raw.encode_to_vec().into(), Lsn::new(1)).expect("an event");
        vec![event; count]
    }

    fn add(deliveries: &mut Deliveries, lane: usize, seq: u64, count: usize) -> Option<Dispatch> {
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        deliveries.add(lane, id(seq), events(count), permit)
    }

    /// Batches 0, 1, … with one part each, of one event, in `lane`.
    fn one_part_each(deliveries: &mut Deliveries, lane: usize, batches: u64) {
        for seq in 0..batches {
            deliveries.open_batch(id(seq), 1, 1, Some(Lsn::new(100 + seq)));
            add(deliveries, lane, seq, 1);
        }
    }

    fn open(deliveries: &mut Deliveries, lane: usize, epoch: u32) -> Vec<(u32, u64)> {
        let sent = deliveries.opened(lane, epoch, probe().0);
        sent.iter().map(|sent| (sent.epoch, sent.part)).collect()
    }

    fn ack(lane: usize, epoch: u32, part: u64) -> PartDone {
        PartDone { lane, epoch, part, result: Ok(Vec::new()), onward: Vec::new() }
    }

    fn failure(lane: usize, epoch: u32, part: u64) -> PartDone {
        let error = Error::new(ErrorKind::KafkaUnavailable, "no");
        PartDone { lane, epoch, part, result: Err(error), onward: Vec::new() }
    }

    fn batch_done(end: PartEnd) -> Option<(u64, Option<Lsn>, usize)> {
        match end {
            PartEnd::Batch { done, .. } => Some((done.id.seq, done.commit_end_lsn, done.events)),
            _ => None,
        }
    }

    #[actix::test]
    async fn parts_wait_until_their_lane_is_open_and_later_ones_do_not() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 3);
        assert_eq!(open(&mut deliveries, A, 0), [(0, 0), (0, 1), (0, 2)]);
        deliveries.open_batch(id(3), 1, 1, None);
        let sent = add(&mut deliveries, A, 3, 1).expect("sent at once");
        assert_eq!((sent.lane, sent.epoch, sent.part, &*sent.topic), (A, 0, 3, "a"));
        deliveries.open_batch(id(4), 1, 1, None);
        assert!(add(&mut deliveries, B, 4, 1).is_none(), "lane b is not open");
    }

    #[actix::test]
    async fn a_batch_is_done_only_when_its_last_part_is() {
        let mut deliveries = deliveries();
        deliveries.open_batch(id(0), 2, 5, Some(Lsn::new(9)));
        add(&mut deliveries, A, 0, 2);
        add(&mut deliveries, B, 0, 3);
        open(&mut deliveries, A, 0);
        open(&mut deliveries, B, 0);
        let end = deliveries.finish(ack(B, 0, 0));
        assert!(matches!(end, PartEnd::Part { lane: B, events: 3, .. }), "{end:?}");
        let end = deliveries.finish(ack(A, 0, 0));
        assert!(matches!(end, PartEnd::Batch { lane: A, events: 2, .. }), "{end:?}");
        assert_eq!(batch_done(end), Some((0, Some(Lsn::new(9)), 5)));
        assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale), "done twice");
    }

    #[actix::test]
    async fn the_parts_of_a_failed_lane_go_out_again_whole_and_in_order() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 4);
        open(&mut deliveries, A, 0);
        assert!(batch_done(deliveries.finish(ack(A, 0, 0))).is_some());
        // Part 2 is acknowledged out of turn, then part 1 fails.
        assert!(batch_done(deliveries.finish(ack(A, 0, 2))).is_some());
        assert!(matches!(deliveries.finish(failure(A, 0, 1)), PartEnd::Failed(_)));
        let again = Opening { lane: A, topic: "a".into(), epoch: 1, failures: 1 };
        assert_eq!(deliveries.close(A, 0), Some(again));
        // What comes while it is closed waits behind what was sent before.
        deliveries.open_batch(id(4), 1, 1, None);
        assert!(add(&mut deliveries, A, 4, 1).is_none());
        assert_eq!(open(&mut deliveries, A, 1), [(1, 1), (1, 3), (1, 4)]);
    }

    #[actix::test]
    async fn a_batch_waits_for_what_its_part_handed_on() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 1);
        open(&mut deliveries, A, 0);
        open(&mut deliveries, B, 0);
        let onward = vec![Record::of(&events(1)[0]).into(), Record::of(&events(1)[0]).into()];
        let end = deliveries.finish(PartDone { onward, ..ack(A, 0, 0) });
        let PartEnd::HandedOn { events: 1, delivered: 0, rest, .. } = end else {
            panic!("{end:?}")
        };
        assert_eq!((rest.onward.len(), rest.batch), (2, id(0)));
        deliveries.split(rest.batch, 2);
        assert!(add(&mut deliveries, A, 0, 1).is_some() && add(&mut deliveries, B, 0, 1).is_some());
        assert!(batch_done(deliveries.finish(ack(B, 0, 0))).is_none());
        let done = batch_done(deliveries.finish(ack(A, 0, 1)));
        assert_eq!(done, Some((0, Some(Lsn::new(100)), 1)));
    }

    #[actix::test]
    async fn a_paused_topic_keeps_its_parts_through_a_failure_and_sends_them_in_order() {
        let mut deliveries = deliveries();
        let topic = "a".into();
        one_part_each(&mut deliveries, A, 1);
        open(&mut deliveries, A, 0);
        assert!(deliveries.pause(&topic, true).is_empty());
        deliveries.open_batch(id(1), 1, 1, None);
        assert!(add(&mut deliveries, A, 1, 1).is_none());
        deliveries.finish(failure(A, 0, 0));
        assert!(deliveries.close(A, 0).is_some());
        assert_eq!(open(&mut deliveries, A, 1), []);
        let sent = deliveries.pause(&topic, false);
        assert_eq!(sent.iter().map(|sent| sent.part).collect::<Vec<_>>(), [0, 1]);
        assert!(deliveries.pause(&topic, false).is_empty(), "sent once");
    }

    #[actix::test]
    async fn only_the_first_failure_of_an_epoch_closes_the_lane() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 2);
        open(&mut deliveries, A, 0);
        deliveries.finish(failure(A, 0, 0));
        assert!(deliveries.close(A, 0).is_some());
        deliveries.finish(failure(A, 0, 1));
        assert_eq!(deliveries.close(A, 0), None);
        assert_eq!(open(&mut deliveries, A, 0), [], "an opening of an older epoch");
        assert_eq!(open(&mut deliveries, A, 1), [(1, 0), (1, 1)]);
    }

    #[actix::test]
    async fn a_token_of_an_older_epoch_says_nothing_of_a_part_that_went_out_again() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 1);
        open(&mut deliveries, A, 0);
        deliveries.close(A, 0);
        open(&mut deliveries, A, 1);
        assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale));
        assert!(matches!(deliveries.finish(failure(A, 0, 0)), PartEnd::Stale));
        assert_eq!(batch_done(deliveries.finish(ack(A, 1, 0))), Some((0, Some(Lsn::new(100)), 1)));
    }

    #[actix::test]
    async fn a_token_that_is_out_while_the_lane_is_closed_still_counts() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 2);
        open(&mut deliveries, A, 0);
        deliveries.finish(failure(A, 0, 1));
        deliveries.close(A, 0);
        // Kafka has it: sending it again would only be a duplicate.
        assert!(batch_done(deliveries.finish(ack(A, 0, 0))).is_some());
        assert_eq!(open(&mut deliveries, A, 1), [(1, 1)]);
    }

    #[actix::test]
    async fn a_part_that_failed_is_not_done_by_the_same_token() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 1);
        open(&mut deliveries, A, 0);
        deliveries.finish(failure(A, 0, 0));
        assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale));
    }

    #[actix::test]
    async fn failures_count_until_something_is_delivered() {
        let mut deliveries = deliveries();
        one_part_each(&mut deliveries, A, 2);
        let failures = |opening: Option<Opening>| opening.expect("closed").failures;
        assert_eq!(failures(deliveries.close(A, 0)), 1);
        assert_eq!(failures(deliveries.close(A, 1)), 2);
        open(&mut deliveries, A, 2);
        deliveries.finish(ack(A, 2, 0));
        assert_eq!(failures(deliveries.close(A, 2)), 1);
    }

    #[actix::test]
    async fn what_is_behind_a_blocked_part_goes_out_after_it() {
        let mut deliveries = deliveries();
        deliveries.block = true;
        one_part_each(&mut deliveries, A, 3);
        assert_eq!(open(&mut deliveries, A, 0), [(0, 0), (0, 1), (0, 2)]);
        let refused = |epoch, part| {
            let error = Error::new(ErrorKind::RecordRefused, "never");
            PartDone {
                lane: A,
                epoch,
                part,
                result: Ok(vec![Refused { index: 0, error }]),
                onward: Vec::new(),
            }
        };
        for part in [1, 2] {
            let end = deliveries.finish(refused(0, part));
            assert!(matches!(&end, PartEnd::Failed(e) if e.kind() == ErrorKind::RecordBlocked));
        }
        deliveries.close(A, 0).expect("it was open");
        // Up to the first that was refused, and nothing that is behind it or new.
        assert_eq!(open(&mut deliveries, A, 1), [(1, 0), (1, 1)]);
        deliveries.open_batch(id(3), 1, 1, None);
        assert!(add(&mut deliveries, A, 3, 1).is_none());
        let ack =
            |part| PartDone { lane: A, epoch: 1, part, result: Ok(Vec::new()), onward: Vec::new() };
        deliveries.finish(ack(0));
        assert!(deliveries.released(A).is_empty(), "the blocked one is not through");
        deliveries.finish(ack(1));
        let released = deliveries.released(A);
        assert_eq!(released.iter().map(|sent| sent.part).collect::<Vec<_>>(), [2, 3]);
        assert!(deliveries.released(A).is_empty(), "once");
    }

    #[test]
    fn answers_for_lanes_and_parts_that_never_were_say_nothing() {
        let mut deliveries = deliveries();
        assert!(matches!(deliveries.finish(ack(7, 0, 0)), PartEnd::Stale));
        assert!(matches!(deliveries.finish(ack(A, 0, 0)), PartEnd::Stale));
        assert_eq!(deliveries.close(7, 0), None);
        assert!(deliveries.topic(7).is_none());
    }
}
