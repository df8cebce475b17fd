//! Instructions for making an event's record, kept beside the event until it is sent.

use std::sync::Arc;

use super::routes::{RouteChoice, Routes};
use crate::{
    Event, Result,
    format::{self, Prefixes, SchemaRef},
    record::Record,
};

/// Instructions for making an event's record, from its route and its format.
///
/// The plan travels beside the event, and the record is made from both when it is sent. So only the
/// event waits in memory, and the byte window counts that.
pub(crate) struct RecordPlan {
    routes: Arc<Routes>,
    choice: RouteChoice,
}

impl RecordPlan {
    pub(super) fn new(routes: &Arc<Routes>, choice: RouteChoice) -> Self {
        RecordPlan { routes: Arc::clone(routes), choice }
    }

    pub(super) fn choice(&self) -> &RouteChoice {
        &self.choice
    }

    /// Number of the route that takes the event, from 0; none if no route does.
    pub fn route(&self) -> Option<usize> {
        self.choice.route
    }

    /// The schema of the record's value in a topic, if its format has one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn schema_ref(&self, event: &Event, topic: &str) -> Result<Option<SchemaRef>> {
        self.routes.schema_ref(&self.choice, event, topic)
    }

    /// Makes the record of an event, without the schema prefix of its value.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused) if the event can't be one.
    pub fn record(&self, event: &Event) -> Result<Record> {
        self.routes.record(&self.choice, event)
    }

    /// Makes the record of an event for a topic, with the schema prefix of its value.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn framed_record(&self, event: &Event, topic: &str, prefixes: &Prefixes) -> Result<Record> {
        let schema_ref = self.schema_ref(event, topic)?;
        prefixes.framed(self.record(event)?, schema_ref.as_ref())
    }
}

/// An event on its way to a topic, and the plan for its record.
#[derive(Clone, Debug)]
pub struct OutgoingEvent {
    pub(crate) event: Event,
    /// None for the default record.
    pub(crate) plan: Option<Arc<RecordPlan>>,
}

impl OutgoingEvent {
    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Wraps an event that is sent as its default record.
    pub(crate) fn with_default_record(event: Event) -> Self {
        OutgoingEvent { event, plan: None }
    }

    /// The schema of its record's value in a topic, if its format has one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub(crate) fn schema_ref(&self, topic: &str) -> Result<Option<SchemaRef>> {
        self.plan.as_ref().map_or(Ok(None), |plan| plan.schema_ref(&self.event, topic))
    }

    /// Makes its record for a topic.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused) if the event can't be one.
    pub(crate) fn record(&self, topic: &str, prefixes: &Prefixes) -> Result<Record> {
        match &self.plan {
            Some(plan) => plan.framed_record(&self.event, topic, prefixes),
            None => Ok(format::default_record(&self.event)),
        }
    }
}

impl std::fmt::Debug for RecordPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordPlan").field("route", &self.choice.route).finish_non_exhaustive()
    }
}

/// Plans for the events of a topic part, by index. Most parts have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plans(Option<Arc<Vec<Option<Arc<RecordPlan>>>>>);

impl Plans {
    /// The plan for the event at `index`; none for the default record.
    pub fn of(&self, index: usize) -> Option<&Arc<RecordPlan>> {
        self.0.as_ref()?.get(index)?.as_ref()
    }
}

/// Events for one topic, with their plans.
#[derive(Debug, Default)]
pub(crate) struct OutgoingEvents {
    pub events: Vec<Event>,
    /// One entry per event, up to the last event that has a plan.
    plans: Vec<Option<Arc<RecordPlan>>>,
}

impl OutgoingEvents {
    /// Creates an empty list with room for so many events.
    pub fn with_room(events: usize) -> Self {
        OutgoingEvents { events: Vec::with_capacity(events), plans: Vec::new() }
    }

    pub fn push(&mut self, outgoing: OutgoingEvent) {
        if outgoing.plan.is_some() {
            self.plans.resize(self.events.len(), None);
            self.plans.push(outgoing.plan);
        }
        self.events.push(outgoing.event);
    }

    /// Returns the events with their plans.
    pub fn into_outgoing(self) -> impl Iterator<Item = OutgoingEvent> {
        let OutgoingEvents { events, plans } = self;
        let plans = plans.into_iter().chain(std::iter::repeat(None));
        events.into_iter().zip(plans).map(|(event, plan)| OutgoingEvent { event, plan })
    }

    /// Returns the events, and their plans by index.
    pub fn into_parts(self) -> (Vec<Event>, Plans) {
        let OutgoingEvents { events, plans } = self;
        (events, Plans((!plans.is_empty()).then(|| Arc::new(plans))))
    }
}

impl From<Vec<Event>> for OutgoingEvents {
    fn from(events: Vec<Event>) -> Self {
        OutgoingEvents { events, plans: Vec::new() }
    }
}

impl FromIterator<OutgoingEvent> for OutgoingEvents {
    fn from_iter<I: IntoIterator<Item = OutgoingEvent>>(all: I) -> Self {
        let mut events = OutgoingEvents::default();
        all.into_iter().for_each(|outgoing| events.push(outgoing));
        events
    }
}
