//! One unacknowledged part of a topic: its events, and what is left of them after a failure.

use std::{sync::Arc, time::Instant};

use actix::Recipient;

use super::Dispatch;
#[cfg(feature = "otlp")]
use super::spans::{PartSpans, SpanMaker};
use crate::{
    Error, Event,
    messages::{BatchId, HandlerOutput, PartProgress, Refused, TopicBatch, WindowPermit},
    routing::{OutgoingEvent, OutgoingEvents, Plans},
};

/// A part that was not yet acknowledged.
pub(super) struct UnackedPart {
    pub number: u64,
    pub batch: BatchId,
    /// The events that are neither delivered nor refused.
    pub events: Arc<Vec<Event>>,
    plans: Plans,
    /// Refusals that the events need not wait for any more, with `dead_letter.policy =
    /// "hold-aggregate"`; 0 and missing ones are none.
    pub cleared: Vec<u32>,
    /// Events that were refused while others of the part were not yet done.
    pub refused: Vec<(OutgoingEvent, Error)>,
    /// Number of events that it had at first.
    pub count: usize,
    pub permit: WindowPermit,
    pub since: Instant,
    /// The epoch it was last sent in, if its token is still out.
    pub sent_in: Option<u32>,
    /// None while nobody asked for traces.
    #[cfg(feature = "otlp")]
    spans: Option<Box<PartSpans>>,
}

impl UnackedPart {
    pub fn new(number: u64, batch: BatchId, events: OutgoingEvents, permit: WindowPermit) -> Self {
        let (events, plans) = events.into_parts();
        UnackedPart {
            number,
            batch,
            count: events.len(),
            events: Arc::new(events),
            plans,
            cleared: Vec::new(),
            refused: Vec::new(),
            permit,
            since: Instant::now(),
            sent_in: None,
            #[cfg(feature = "otlp")]
            spans: None,
        }
    }

    /// Begins its spans.
    #[cfg(feature = "otlp")]
    pub fn traced(mut self, spans: &SpanMaker, topic: &Arc<str>) -> Self {
        self.spans = Some(Box::new(spans.part(topic, &self.events)));
        self
    }

    /// Notes in its span a failure after which what is left is sent again.
    #[cfg_attr(not(feature = "otlp"), allow(unused_variables, clippy::unused_self))]
    pub fn note_failure(&mut self, error: &Error) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = &mut self.spans {
            spans.failed(error);
        }
    }

    /// Ends its spans: all is acknowledged but for what was refused.
    #[cfg_attr(not(feature = "otlp"), allow(unused_variables, clippy::unused_self))]
    pub fn end_spans(&mut self, refused: &[(OutgoingEvent, Error)]) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans.take() {
            spans.delivered(refused.iter().map(|(outgoing, error)| (&outgoing.event, error)));
        }
    }

    /// Makes the part ready to be sent in this epoch.
    pub fn dispatch(
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
            plans: self.plans.clone(),
            permit: self.permit.clone(),
            lane,
            epoch,
            part: self.number,
        }
    }

    /// Keeps what is left of a part that failed halfway; returns false if that is all of it.
    pub fn keep_rest(&mut self, progress: PartProgress) -> bool {
        let PartProgress { delivered, refused } = progress;
        let mut left = vec![true; self.events.len()];
        for index in delivered.iter().copied().chain(refused.iter().map(|one| one.index)) {
            left.get_mut(index).into_iter().for_each(|left| *left = false);
        }
        let refused = self.pick(refused);
        self.refused.extend(refused);
        let some_ended = left.contains(&false);
        if some_ended {
            let cleared = std::mem::take(&mut self.cleared);
            let left = || left.iter().enumerate().filter(|(_, left)| **left);
            self.set_events(left().filter_map(|(index, _)| self.outgoing(index)).collect());
            if !cleared.is_empty() {
                let of = |index: usize| cleared.get(index).copied().unwrap_or_default();
                self.cleared = left().map(|(index, _)| of(index)).collect();
            }
        }
        some_ended
    }

    /// The events that were refused, with their errors.
    pub fn pick(&self, refused: Vec<Refused>) -> Vec<(OutgoingEvent, Error)> {
        refused.into_iter().filter_map(|r| Some((self.outgoing(r.index)?, r.error))).collect()
    }

    /// Replaces its events.
    pub fn set_events(&mut self, events: OutgoingEvents) {
        let (events, plans) = events.into_parts();
        (self.events, self.plans) = (Arc::new(events), plans);
        self.cleared.clear();
    }

    pub fn outgoing(&self, index: usize) -> Option<OutgoingEvent> {
        let event = self.events.get(index)?.clone();
        Some(OutgoingEvent { event, plan: self.plans.of(index).cloned() })
    }

    /// Number of events with output of a handler: records of one event follow each other.
    pub fn count_forwarded(&self, output: &[HandlerOutput]) -> usize {
        let event = |one: &HandlerOutput| match one {
            HandlerOutput::Event(index) => self.events.get(*index).map(Event::stream_position),
            HandlerOutput::Record(record) => Some(record.event().stream_position()),
        };
        output.chunk_by(|one, next| event(one) == event(next)).count()
    }
}
