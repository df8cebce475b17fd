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

use crate::{
    Error, ErrorKind, Event, Lsn,
    handlers::Onward,
    messages::{
        BatchDone, BatchId, PartDone, PartProgress, Refused, Suspects, TopicBatch, WindowPermit,
    },
};

/// Maximum number of immediate reopenings of a lane in a row while nothing is delivered.
const OPENINGS_AT_ONCE: u32 = 10;

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
    /// The events that are neither delivered nor refused.
    events: Arc<Vec<Event>>,
    suspects: Suspects,
    /// Events that were refused while others of the part were not yet done.
    refused: Vec<(Event, Error)>,
    /// Number of events that it had at first.
    count: usize,
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
    pub suspects: Suspects,
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
    /// The part failed; so does its lane, unless it was closed already. Where nothing is wrong
    /// with the topic, it can be opened again at once.
    Failed { error: Error, at_once: bool },
}

/// What a token handed back of its part.
#[derive(Debug)]
pub(crate) struct Rest {
    pub lane: usize,
    pub refused: Vec<(Event, Error)>,
    pub onward: Vec<Onward>,
    /// All of the part, for those that go on as they are.
    pub events: Arc<Vec<Event>>,
    pub batch: BatchId,
    pub permit: WindowPermit,
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
        slot.outstanding.push_back(Part {
            number,
            batch,
            count: events.len(),
            events: Arc::new(events),
            suspects: Suspects::default(),
            refused: Vec::new(),
            permit,
            since: Instant::now(),
            sent_in: None,
        });
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
        let mut refused = std::mem::take(&mut part.refused);
        match done.result {
            Ok(now) => refused.extend(part.pick(now)),
            Err(error) => {
                part.sent_in = None;
                part.refused = refused;
                let at_once = done.progress.at_once;
                if part.keep_rest(done.progress) {
                    lane.failures = 0;
                }
                if error.kind() == ErrorKind::RecordBlocked {
                    lane.blocked = Some(lane.blocked.unwrap_or(u64::MAX).min(done.part));
                }
                return PartEnd::Failed {
                    error,
                    at_once: at_once && lane.failures < OPENINGS_AT_ONCE,
                };
            }
        }
        if let (true, Some((_, error))) = (self.block, refused.first()) {
            let blocked = Error::new(ErrorKind::RecordBlocked, "a refused record blocks its topic");
            let blocked = blocked.caused_by(error.clone());
            // Records that would go on come again with the part, whole.
            if done.onward.is_empty() {
                part.suspects = Suspects::new(vec![true; refused.len()]);
                part.events = Arc::new(refused.into_iter().map(|(event, _)| event).collect());
            }
            part.sent_in = None;
            lane.blocked = Some(lane.blocked.unwrap_or(u64::MAX).min(done.part));
            return PartEnd::Failed { error: blocked, at_once: false };
        }
        let Some(part) = lane.outstanding.remove(position) else { return PartEnd::Stale };
        lane.failures = 0;
        let (events, took) = (part.count, part.since.elapsed());
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
        // The part that blocked may have ended while the lane was closed.
        let first = slot.outstanding.front().map(|part| part.number);
        slot.blocked = slot.blocked.filter(|last| first.is_some_and(|first| first <= *last));
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

    /// True if `epoch` is the lane's present one, and events can be sent to it.
    pub fn is_open(&self, lane: usize, epoch: u32) -> bool {
        self.lanes.get(lane).is_some_and(|slot| slot.epoch == epoch && slot.recipient.is_some())
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
    /// Keeps what is left of a part that failed on its way; false where all of it is, as it was.
    fn keep_rest(&mut self, progress: PartProgress) -> bool {
        let PartProgress { delivered, refused, suspects, .. } = progress;
        let mut left = vec![true; self.events.len()];
        let mut alone: Vec<_> = (0..left.len()).map(|at| self.suspects.contains(at)).collect();
        let was_alone = alone.clone();
        for index in delivered.iter().copied().chain(refused.iter().map(|one| one.index)) {
            left.get_mut(index).into_iter().for_each(|left| *left = false);
        }
        for index in suspects {
            alone.get_mut(index).into_iter().for_each(|alone| *alone = true);
        }
        let refused = self.pick(refused);
        self.refused.extend(refused);
        let some_ended = left.contains(&false);
        let moved = some_ended || alone != was_alone;
        if some_ended {
            let rest = |of: &mut Vec<bool>| {
                let mut left = left.iter();
                of.retain(|_| left.next().is_some_and(|left| *left));
            };
            rest(&mut alone);
            let mut left = left.iter();
            let events = self.events.iter().filter(|_| left.next().is_some_and(|left| *left));
            self.events = Arc::new(events.cloned().collect());
        }
        if moved {
            self.suspects = Suspects::new(alone);
        }
        moved
    }

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
            suspects: self.suspects.clone(),
            permit: self.permit.clone(),
            lane,
            epoch,
            part: self.number,
        }
    }
}

#[cfg(test)]
mod tests;
