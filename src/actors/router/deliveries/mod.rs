//! Unacknowledged parts by topic, and the batches that they belong to: a plain struct.
//!
//! There are two views of the same parts: by batch, to know when a batch is done, and by
//! lane, to send all of them again, in order, when a lane was reopened.

mod holding;
mod part;
#[cfg(feature = "otlp")]
mod spans;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix::Recipient;

pub(crate) use self::holding::Released;
#[cfg(feature = "otlp")]
pub(crate) use self::spans::SpanMaker;
use self::{holding::Holding, part::UnackedPart};
use crate::{
    Error, ErrorKind, Event, Lsn,
    messages::{BatchDone, BatchId, HandlerOutput, PartDone, TopicBatch, WindowPermit},
    routing::{OutgoingEvents, Plans},
};

/// Lanes, their unacknowledged parts, and the batches of these.
#[derive(Default)]
pub(crate) struct Deliveries {
    block: bool,
    /// Topics to which nothing more is sent for now.
    paused: HashSet<Arc<str>>,
    lanes: Vec<Lane>,
    by_topic: HashMap<Arc<str>, usize>,
    batches: HashMap<BatchId, OpenBatch>,
    /// None unless `dead_letter.policy` is `hold-aggregate`.
    holding: Option<Holding>,
    /// None while nobody asked for traces.
    #[cfg(feature = "otlp")]
    spans: Option<SpanMaker>,
}

struct Lane {
    topic: Arc<str>,
    epoch: u32,
    /// Openings in a row that delivered nothing.
    failures: u32,
    /// None while it is being opened.
    recipient: Option<Recipient<TopicBatch>>,
    next_part: u64,
    /// The first part of which events were refused: those behind it are sent after it, not
    /// with it.
    blocked: Option<u64>,
    outstanding: VecDeque<UnackedPart>,
}

struct OpenBatch {
    parts: usize,
    events: usize,
    commit_end_lsn: Option<Lsn>,
}

/// One part that is ready to be sent: make its token and give it to the recipient.
pub(crate) struct Dispatch {
    pub recipient: Recipient<TopicBatch>,
    pub topic: Arc<str>,
    pub events: Arc<Vec<Event>>,
    pub plans: Plans,
    pub permit: WindowPermit,
    pub lane: usize,
    pub epoch: u32,
    pub part: u64,
}

/// The consequence of a token's answer.
#[derive(Debug)]
pub(crate) enum PartEnd {
    /// None: the token speaks for a part that is done or was sent again.
    Stale,
    /// The part is done; its batch is not.
    Done { lane: usize, events: usize, took: Duration },
    /// The part is done, and was the last of its batch.
    LastDone { lane: usize, events: usize, took: Duration, batch: BatchDone },
    /// The part is done but for what its token gave back. The batch waits for the parts that this
    /// becomes: see [`Deliveries::replace_part`].
    Returned { events: usize, delivered: usize, took: Duration, returned: ReturnedEvents },
    /// Events of the part are in the table of held events, but for those that were released.
    Written {
        events: usize,
        took: Duration,
        batch: BatchId,
        permit: WindowPermit,
        released: Vec<Released>,
    },
    /// The part failed; so does its lane, unless it was closed already.
    Failed(Error),
}

/// Events and records that a token gave back.
#[derive(Debug)]
pub(crate) struct ReturnedEvents {
    pub lane: usize,
    pub refused: Vec<(Event, Error)>,
    pub output: Vec<HandlerOutput>,
    /// All events of the part, for those that are forwarded unchanged.
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

impl Lane {
    /// Holds back what is behind this part.
    fn block_at(&mut self, part: u64) {
        self.blocked = Some(self.blocked.unwrap_or(u64::MAX).min(part));
    }
}

impl Deliveries {
    /// With `block`, refused events stay where they are, and what is behind them waits.
    pub fn new(block: bool, paused: HashSet<Arc<str>>) -> Self {
        Deliveries { block, paused, ..Deliveries::default() }
    }

    /// Makes a span of each part from now on.
    #[cfg(feature = "otlp")]
    pub fn traced(self, spans: SpanMaker) -> Self {
        Deliveries { spans: Some(spans), ..self }
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

    /// Notes a batch of `parts` parts, before they are added.
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
        events: OutgoingEvents,
        permit: WindowPermit,
    ) -> Option<Dispatch> {
        let slot = self.lanes.get_mut(lane)?;
        let number = slot.next_part;
        slot.next_part += 1;
        let part = UnackedPart::new(number, batch, events, permit);
        #[cfg(feature = "otlp")]
        let part = match &self.spans {
            Some(spans) => part.traced(spans, &slot.topic),
            None => part,
        };
        slot.outstanding.push_back(part);
        if slot.blocked.is_some() || self.paused.contains(&slot.topic) {
            return None;
        }
        let recipient = slot.recipient.clone()?;
        slot.outstanding
            .back_mut()
            .map(|part| part.dispatch(lane, &slot.topic, slot.epoch, recipient))
    }

    /// Takes a token's answer.
    pub fn finish(&mut self, done: PartDone) -> PartEnd {
        let stops = self.stops_for(done.lane);
        let Some(lane) = self.lanes.get_mut(done.lane) else { return PartEnd::Stale };
        // Parts mostly end in order, so that the first one is the one.
        let position = lane
            .outstanding
            .iter()
            .position(|part| part.number == done.part && part.sent_in == Some(done.epoch));
        let Some(position) = position else { return PartEnd::Stale };
        let Some(part) = lane.outstanding.get_mut(position) else { return PartEnd::Stale };
        let mut refused = std::mem::take(&mut part.refused);
        if self.holding.as_ref().is_some_and(|holding| holding.is_lane(done.lane))
            && done.result.is_ok()
        {
            return self.finish_held(position, &done);
        }
        match done.result {
            Ok(now) => refused.extend(part.pick(now)),
            Err(error) => {
                part.sent_in = None;
                part.refused = refused;
                part.note_failure(&error);
                if part.keep_rest(done.progress) {
                    lane.failures = 0;
                }
                if self.block && error.kind() == ErrorKind::RecordBlocked {
                    lane.block_at(done.part);
                }
                self.hold_refused(done.lane, position);
                return PartEnd::Failed(error);
            }
        }
        if !refused.is_empty() && stops {
            return self.keep_refused(done.lane, position, refused);
        }
        if let (true, Some((_, error))) = (self.block, refused.first()) {
            let blocked = Error::new(ErrorKind::RecordBlocked, "a refused record blocks its topic");
            let error = blocked.caused_by(error.clone());
            // A part with output to forward is sent again whole.
            if done.output.is_empty() {
                part.set_events(refused.into_iter().map(|(outgoing, _)| outgoing).collect());
            }
            part.sent_in = None;
            part.note_failure(&error);
            lane.block_at(done.part);
            return PartEnd::Failed(error);
        }
        let Some(mut part) = lane.outstanding.remove(position) else { return PartEnd::Stale };
        part.end_spans(&refused);
        lane.failures = 0;
        let (events, took) = (part.count, part.since.elapsed());
        let (lane, output) = (done.lane, done.output);
        if !refused.is_empty() || !output.is_empty() {
            let delivered = events.saturating_sub(refused.len() + part.count_forwarded(&output));
            let UnackedPart { batch, events: all, permit, .. } = part;
            let refused = refused.into_iter().map(|(outgoing, error)| (outgoing.event, error));
            let refused = refused.collect();
            let returned = ReturnedEvents { lane, refused, output, events: all, batch, permit };
            return PartEnd::Returned { events, delivered, took, returned };
        }
        if !self.batches.contains_key(&part.batch) {
            return PartEnd::Stale;
        }
        match self.replace_part(part.batch, 0) {
            None => PartEnd::Done { lane, events, took },
            Some(batch) => PartEnd::LastDone { lane, events, took, batch },
        }
    }

    /// Counts `parts` parts, which are added next, in place of one of the batch's.
    ///
    /// With 0 the batch may be done then.
    pub fn replace_part(&mut self, id: BatchId, parts: usize) -> Option<BatchDone> {
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

    /// Makes those parts ready that were not sent since the lane was opened.
    fn send_waiting(&mut self, lane: usize) -> Vec<Dispatch> {
        let mut dispatches = self.divert_waiting(lane);
        let Some(slot) = self.lanes.get_mut(lane) else { return Vec::new() };
        if self.paused.contains(&slot.topic) {
            return Vec::new();
        }
        let Some(recipient) = slot.recipient.clone() else { return Vec::new() };
        let last = slot.blocked.unwrap_or(u64::MAX);
        let (topic, epoch) = (&slot.topic, slot.epoch);
        let waiting = slot
            .outstanding
            .iter_mut()
            .take_while(|part| part.number <= last)
            .filter(|part| part.sent_in != Some(epoch))
            .map(|part| part.dispatch(lane, topic, epoch, recipient.clone()));
        dispatches.extend(waiting);
        dispatches
    }

    /// Closes the lane if `epoch` is its present one: it then has to be opened again.
    pub fn close(&mut self, lane: usize, epoch: u32) -> Option<Opening> {
        let slot = self.lanes.get_mut(lane).filter(|slot| slot.epoch == epoch)?;
        slot.recipient = None;
        slot.epoch += 1;
        slot.failures += 1;
        Some(self.opening(lane))
    }

    /// Opens the lane, if `epoch` is its present one: all of its parts are sent, in order.
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

    /// Makes those parts ready that waited for a refused one that is done now, in order.
    pub fn release(&mut self, lane: usize) -> Vec<Dispatch> {
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

#[cfg(test)]
mod holding_model;
#[cfg(test)]
mod tests;
