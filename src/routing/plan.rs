//! How the record of an event is made, where it is not the usual one.

use std::sync::Arc;

use super::routes::{RouteChoice, Routes};
use crate::{
    Event, Result,
    format::{self, Prefixes, SchemaRef},
    record::Record,
};

/// What a route and a format say of an event's record.
///
/// It goes beside the event, and the record is made of both when it is sent: what waits is the
/// event alone, which the byte window counts.
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

    /// The schema that the value of the record is written by in a topic, if it is by one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn schema_ref(&self, event: &Event, topic: &str) -> Result<Option<SchemaRef>> {
        self.routes.schema_ref(&self.choice, event, topic)
    }

    /// The record of an event, without what its schema puts before the value.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused): why there can be none.
    pub fn record(&self, event: &Event) -> Result<Record> {
        self.routes.record(&self.choice, event)
    }

    /// The record of an event for a topic, with what its schema puts before the value.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn framed_record(&self, event: &Event, topic: &str, prefixes: &Prefixes) -> Result<Record> {
        let schema_ref = self.schema_ref(event, topic)?;
        prefixes.framed(self.record(event)?, schema_ref.as_ref())
    }
}

/// An event on its way to a topic, and how its record is made.
#[derive(Clone, Debug)]
pub struct OutgoingEvent {
    pub(crate) event: Event,
    /// None where the record is the usual one.
    pub(crate) plan: Option<Arc<RecordPlan>>,
}

impl OutgoingEvent {
    /// The event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// An event whose record is the usual one.
    pub(crate) fn with_default_record(event: Event) -> Self {
        OutgoingEvent { event, plan: None }
    }

    /// The schema that the value of its record is written by in a topic, if it is by one.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub(crate) fn schema_ref(&self, topic: &str) -> Result<Option<SchemaRef>> {
        self.plan.as_ref().map_or(Ok(None), |plan| plan.schema_ref(&self.event, topic))
    }

    /// Its record for a topic.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused): why there can be none.
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

/// Plans of the events of a part, by index; most parts have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plans(Option<Arc<Vec<Option<Arc<RecordPlan>>>>>);

impl Plans {
    /// The plan of the event at `index`; none where its record is the usual one.
    pub fn of(&self, index: usize) -> Option<&Arc<RecordPlan>> {
        self.0.as_ref()?.get(index)?.as_ref()
    }

    /// True where every record is the usual one.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Events for one topic, with their plans.
#[derive(Debug, Default)]
pub(crate) struct OutgoingEvents {
    pub events: Vec<Event>,
    /// Ends with the last event that has one.
    plans: Vec<Option<Arc<RecordPlan>>>,
}

impl OutgoingEvents {
    pub fn push(&mut self, outgoing: OutgoingEvent) {
        if outgoing.plan.is_some() {
            self.plans.resize(self.events.len(), None);
            self.plans.push(outgoing.plan);
        }
        self.events.push(outgoing.event);
    }

    /// The events, and their plans by index.
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
