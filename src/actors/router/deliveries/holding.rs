//! Diverts events of held aggregates: out of the parts of their topics, into parts for the table.
//!
//! Events are diverted at the last moment before they are sent. So what waits for a lane keeps its
//! order: when a lane is opened again, all tokens of its parts have come back, and the events that are
//! left are diverted or sent in the order of the lane.

use std::{collections::HashSet, sync::Arc};

use super::{Deliveries, Dispatch, Opening, PartEnd, part::UnackedPart};
use crate::{
    Error, ErrorKind, Event, Refusal,
    actors::{
        held_events::HELD_LANE,
        router::held_aggregates::{Diversion, HeldAggregates},
    },
    messages::{BatchId, PartDone, WindowPermit},
    routing::{OutgoingEvent, OutgoingEvents},
};

/// The held aggregates, and the lane to the table.
pub(super) struct Holding {
    aggregates: HeldAggregates,
    lane: usize,
    /// Numbers of events that were diverted since the last look, by topic.
    diverted: Vec<(Arc<str>, usize)>,
}

/// An event for the table, and the number of the refusal that it is held for.
type HeldEvent = (OutgoingEvent, u32);

/// Events that the table gave back, for one topic.
#[derive(Debug)]
pub(crate) struct Released {
    pub topic: Arc<str>,
    pub events: OutgoingEvents,
    /// For each event, the refusal that it need not wait for any more.
    pub cleared: Vec<u32>,
}

impl Holding {
    pub fn is_lane(&self, lane: usize) -> bool {
        self.lane == lane
    }
}

impl Deliveries {
    /// Diverts the events of held aggregates into the table.
    pub fn holding(mut self, aggregates: HeldAggregates) -> Self {
        let (lane, _) = self.lane(&Arc::from(HELD_LANE));
        self.holding = Some(Holding { aggregates, lane, diverted: Vec::new() });
        self
    }

    /// The lane to the table, which has to be opened before anything else.
    pub fn held_lane(&self) -> Option<Opening> {
        self.holding.as_ref().map(|holding| self.opening(holding.lane))
    }

    /// True if events of held aggregates are diverted.
    pub fn holds(&self) -> bool {
        self.holding.is_some()
    }

    /// True if the lane is that to the table.
    pub fn is_held_lane(&self, lane: usize) -> bool {
        self.holding.as_ref().is_some_and(|holding| holding.lane == lane)
    }

    /// True if a refused record has to be sent to the table before anything behind it is sent.
    pub(super) fn stops_for(&self, lane: usize) -> bool {
        let stops =
            |holding: &Holding| lane != holding.lane && !holding.aggregates.in_transactions();
        self.holding.as_ref().is_some_and(stops)
    }

    /// Numbers of events that were diverted since the last look, by topic.
    pub fn take_diverted(&mut self) -> Vec<(Arc<str>, usize)> {
        self.holding
            .as_mut()
            .map(|holding| std::mem::take(&mut holding.diverted))
            .unwrap_or_default()
    }

    /// Adds a part as [`add`](Self::add) does, and diverts events of held aggregates. `cleared` is what
    /// [`Released`] has, or empty.
    pub fn add_diverting(
        &mut self,
        lane: usize,
        batch: BatchId,
        events: OutgoingEvents,
        cleared: Vec<u32>,
        permit: WindowPermit,
    ) -> Vec<Dispatch> {
        let Some(holding) = &mut self.holding else {
            return self.add(lane, batch, events, permit).into_iter().collect();
        };
        if lane == holding.lane {
            let aggregates = &mut holding.aggregates;
            let number = |event: &Event| match event.refusal() {
                Some(refusal) if !refusal.waits => aggregates.hold(event),
                _ => 0,
            };
            let numbers = events.events.iter().map(number).collect();
            return self.add_held(batch, events, numbers, permit).into_iter().collect();
        }
        let Some(slot) = self.lanes.get(lane) else { return Vec::new() };
        let is_open = slot.recipient.is_some() && !self.paused.contains(&slot.topic);
        let mut dispatches = Vec::new();
        // What waits for its lane is diverted when that is opened.
        let (events, cleared) = if is_open {
            let topic = Arc::clone(&slot.topic);
            let split = split(&mut holding.aggregates, &topic, events, cleared);
            if !split.held.is_empty() {
                holding.diverted.push((topic, split.held.len()));
                if !split.sent.events.is_empty() {
                    self.count_part(batch);
                }
                dispatches.extend(self.divert_part(batch, split.held, permit.clone()));
            }
            if split.sent.events.is_empty() {
                return dispatches;
            }
            (split.sent, split.cleared)
        } else if cleared.is_empty() {
            (events, cleared)
        } else {
            self.add_released(lane, batch, events, &cleared, &permit);
            return dispatches;
        };
        dispatches.extend(self.add(lane, batch, events, permit));
        self.set_cleared(lane, cleared);
        dispatches
    }

    /// Adds events that the table gave back to a lane that is not open, where later events of their
    /// aggregates may wait already: each comes before those.
    fn add_released(
        &mut self,
        lane: usize,
        batch: BatchId,
        events: OutgoingEvents,
        cleared: &[u32],
        permit: &WindowPermit,
    ) {
        for (index, outgoing) in events.into_outgoing().enumerate() {
            if index > 0 {
                self.count_part(batch);
            }
            let event = outgoing.event.clone();
            let is_later = |other: &Event| {
                other.stream_position() > event.stream_position()
                    && other.aggregate() == event.aggregate()
            };
            let has_later = |part: &UnackedPart| {
                let mut refused = part.refused.iter().map(|(outgoing, _)| &outgoing.event);
                part.events.iter().any(is_later) || refused.any(is_later)
            };
            let waiting = self.lanes.get(lane).map(|slot| &slot.outstanding);
            let at = waiting.and_then(|parts| parts.iter().position(has_later));
            self.add(lane, batch, [outgoing].into_iter().collect(), permit.clone());
            self.set_cleared(lane, cleared.get(index..=index).unwrap_or_default().to_vec());
            if let (Some(at), Some(slot)) = (at, self.lanes.get_mut(lane))
                && let Some(part) = slot.outstanding.pop_back()
            {
                slot.outstanding.insert(at, part);
            }
        }
    }

    /// Sets the refusals that the events of a lane's last part need not wait for any more.
    fn set_cleared(&mut self, lane: usize, cleared: Vec<u32>) {
        if let Some(part) = self.lanes.get_mut(lane).and_then(|slot| slot.outstanding.back_mut()) {
            part.cleared = cleared;
        }
    }

    /// Diverts what waits to be sent on an open lane, and the events that it refused.
    pub(super) fn divert_waiting(&mut self, lane: usize) -> Vec<Dispatch> {
        let (Some(holding), Some(slot)) = (&mut self.holding, self.lanes.get_mut(lane)) else {
            return Vec::new();
        };
        let is_open = slot.recipient.is_some() && !self.paused.contains(&slot.topic);
        if lane == holding.lane || !is_open {
            return Vec::new();
        }
        let (topic, epoch) = (Arc::clone(&slot.topic), slot.epoch);
        let waits = |part: &UnackedPart| part.sent_in != Some(epoch);
        // All of them first: what was not delivered before a refused event is diverted with it.
        for part in slot.outstanding.iter().filter(|part| waits(part)) {
            part.refused.iter().for_each(|(outgoing, _)| {
                holding.aggregates.hold(&outgoing.event);
            });
        }
        let mut all_held = Vec::new();
        slot.outstanding.retain_mut(|part| {
            if !waits(part) {
                return true;
            }
            let held = part.divert(&mut holding.aggregates, &topic);
            if held.is_empty() {
                return true;
            }
            part.count = part.count.saturating_sub(held.len());
            holding.diverted.push((Arc::clone(&topic), held.len()));
            let keeps_some = !part.events.is_empty();
            all_held.push((part.batch, part.permit.clone(), keeps_some, held));
            keeps_some
        });
        let mut dispatches = Vec::new();
        for (batch, permit, keeps_some, held) in all_held {
            if keeps_some {
                self.count_part(batch);
            }
            dispatches.extend(self.divert_part(batch, held, permit));
        }
        dispatches
    }

    fn count_part(&mut self, batch: BatchId) {
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.parts += 1;
        }
    }

    fn divert_part(
        &mut self,
        batch: BatchId,
        held: Vec<HeldEvent>,
        permit: WindowPermit,
    ) -> Option<Dispatch> {
        let (events, numbers): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        self.add_held(batch, events.into_iter().collect(), numbers, permit)
    }

    /// Adds a part to the lane of the table.
    fn add_held(
        &mut self,
        batch: BatchId,
        events: OutgoingEvents,
        numbers: Vec<u32>,
        permit: WindowPermit,
    ) -> Option<Dispatch> {
        let holding = self.holding.as_mut()?;
        events.events.iter().for_each(|event| holding.aggregates.writes(event));
        let lane = holding.lane;
        let dispatch = self.add(lane, batch, events, permit);
        self.set_cleared(lane, numbers);
        dispatch
    }

    /// Takes the table's answer for a part that is written.
    pub(super) fn finish_held(&mut self, position: usize, done: &PartDone) -> PartEnd {
        let Some(part) = self.lanes.get_mut(done.lane).and_then(|slot| {
            slot.failures = 0;
            slot.outstanding.remove(position)
        }) else {
            return PartEnd::Stale;
        };
        let mut released: Vec<Released> = Vec::new();
        let given_back = done.result.as_ref().map(Vec::as_slice).unwrap_or_default();
        let given_back: HashSet<_> = given_back.iter().map(|refused| refused.index).collect();
        for (index, event) in part.events.iter().enumerate() {
            let is_released = given_back.contains(&index);
            if let Some(holding) = &mut self.holding {
                holding.aggregates.written(event, is_released);
            }
            let topic = event.refusal().and_then(|refusal| refusal.topic.clone());
            let (true, Some(topic)) = (is_released, topic) else { continue };
            let outgoing = part.outgoing(index);
            let at = released.iter().position(|other| other.topic == topic);
            let at = at.unwrap_or_else(|| {
                let (events, cleared) = (OutgoingEvents::default(), Vec::new());
                released.push(Released { topic, events, cleared });
                released.len() - 1
            });
            if let (Some(to), Some(outgoing)) = (released.get_mut(at), outgoing) {
                let event = outgoing.event.released();
                to.events.push(OutgoingEvent { event, plan: outgoing.plan });
                to.cleared.push(part.cleared.get(index).copied().unwrap_or_default());
            }
        }
        PartEnd::Written {
            events: part.count,
            took: part.since.elapsed(),
            batch: part.batch,
            permit: part.permit,
            released,
        }
    }

    /// Keeps a part of which records were refused until its lane is opened again.
    pub(super) fn keep_refused(
        &mut self,
        lane: usize,
        position: usize,
        refused: Vec<(OutgoingEvent, Error)>,
    ) -> PartEnd {
        let what = "a refused record and the later ones of its aggregate are held";
        let mut error = Error::new(ErrorKind::RecordBlocked, what);
        if let Some((_, first)) = refused.first() {
            error = error.caused_by(first.clone());
        }
        if let Some(part) = self.lanes.get_mut(lane).and_then(|slot| {
            slot.failures = 0;
            slot.outstanding.get_mut(position)
        }) {
            part.set_events(OutgoingEvents::default());
            part.sent_in = None;
            part.refused = refused;
            part.note_failure(&error);
        }
        self.hold_refused(lane, position);
        PartEnd::Failed(error)
    }

    /// Holds the aggregates of a part's refused events.
    pub(super) fn hold_refused(&mut self, lane: usize, position: usize) {
        let part = self.lanes.get(lane).and_then(|slot| slot.outstanding.get(position));
        if let (Some(holding), Some(part)) = (&mut self.holding, part) {
            for (outgoing, _) in &part.refused {
                holding.aggregates.hold(&outgoing.event);
            }
        }
    }

    /// With exactly-once: true if the transaction has a later event of a refused one's aggregate. The
    /// refused events are then remembered for the next transaction.
    pub fn is_overtaken<'a>(
        &self,
        topic: &Arc<str>,
        refused: impl Iterator<Item = &'a (Event, Error)> + Clone,
        is_undone: bool,
    ) -> bool {
        let Some(Holding { aggregates, .. }) = &self.holding else { return false };
        let mut events = refused.clone();
        let is_undone = is_undone || events.any(|(event, _)| aggregates.is_overtaken(event));
        if is_undone {
            refused.for_each(|(event, error)| aggregates.remember(event, topic, error.clone()));
        }
        is_undone
    }

    /// True if nothing that was sent to a topic waits for its answer.
    pub fn is_settled(&self) -> bool {
        let held_lane = self.holding.as_ref().map(|holding| holding.lane);
        let topics = self.lanes.iter().enumerate().filter(|(lane, _)| Some(*lane) != held_lane);
        topics.flat_map(|(_, lane)| &lane.outstanding).all(|part| part.sent_in.is_none())
    }

    /// Notes that the next transaction is open.
    pub fn transaction_ended(&mut self) {
        if let Some(holding) = &mut self.holding {
            holding.aggregates.transaction_ended();
        }
    }
}

impl UnackedPart {
    /// Takes out its refused events, and those of held aggregates.
    fn divert(&mut self, aggregates: &mut HeldAggregates, topic: &Arc<str>) -> Vec<HeldEvent> {
        let first_held = |(outgoing, error): (OutgoingEvent, Error)| {
            let number = aggregates.hold(&outgoing.event);
            let refusal = Refusal::first_held(error, Some(Arc::clone(topic)));
            (OutgoingEvent { event: outgoing.event.refused(refusal), ..outgoing }, number)
        };
        let mut held: Vec<_> =
            std::mem::take(&mut self.refused).into_iter().map(first_held).collect();
        let all: OutgoingEvents =
            (0..self.events.len()).filter_map(|index| self.outgoing(index)).collect();
        let cleared = std::mem::take(&mut self.cleared);
        let split = split(aggregates, topic, all, cleared);
        if split.sent.events.len() < self.events.len() {
            self.set_events(split.sent);
        }
        self.cleared = split.cleared;
        held.extend(split.held);
        held
    }
}

/// Events of a part that are sent, with the refusals that they need not wait for, and those that are
/// diverted.
struct Split {
    sent: OutgoingEvents,
    cleared: Vec<u32>,
    held: Vec<HeldEvent>,
}

/// Divides the events into those that are sent and those that are diverted.
fn split(
    aggregates: &mut HeldAggregates,
    topic: &Arc<str>,
    all: OutgoingEvents,
    cleared: Vec<u32>,
) -> Split {
    if !all.events.iter().any(|event| aggregates.may_divert(event, topic)) {
        all.events.iter().for_each(|event| aggregates.sends(event));
        return Split { sent: all, cleared, held: Vec::new() };
    }
    let mut split =
        Split { sent: OutgoingEvents::default(), cleared: Vec::new(), held: Vec::new() };
    for (index, outgoing) in all.into_outgoing().enumerate() {
        let cleared = cleared.get(index).copied().unwrap_or_default();
        match aggregates.divert(&outgoing.event, topic, cleared) {
            Diversion::None => {
                aggregates.sends(&outgoing.event);
                split.sent.push(outgoing);
                split.cleared.push(cleared);
            }
            Diversion::Held(refusal, number) => {
                let event = outgoing.event.refused(refusal);
                split.held.push((OutgoingEvent { event, plan: outgoing.plan }, number));
            }
        }
    }
    split
}
