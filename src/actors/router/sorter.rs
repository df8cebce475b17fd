//! Sorts events by the topic, handler or dead letters that they go to: a plain struct.

use std::sync::Arc;

use slog::{Logger, error};

use super::{super::held_events::HELD_LANE, ChosenTopics};
use crate::{
    Error, ErrorKind, Event, Refusal, Result,
    config::RefusalPolicy,
    handlers::HandlerLaneNames,
    routing::{CachedRoutes, OutgoingEvent, OutgoingEvents, Routed},
    status::Status,
};

/// Decides where each event goes.
pub(crate) struct EventSorter {
    /// Events of these go to a handler first.
    pub handlers: HandlerLaneNames,
    /// Topics that handlers name.
    pub topics_of_handlers: ChosenTopics,
    pub routing: CachedRoutes,
    /// Number of topics of the last batch: the next one probably has as many.
    pub usual_topics: usize,
    pub dead_letters: DeadLetters,
    /// The lane where events that are not sent get receipts; none if they get none.
    pub filtered_lane: Option<Arc<str>>,
    pub status: Arc<Status>,
    pub log: Logger,
}

/// The fate of events that can never be delivered.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub policy: RefusalPolicy,
    pub topic: Arc<str>,
}

/// Events by topic; those of one topic keep their order.
#[derive(Default)]
pub(crate) struct SortedEvents {
    /// In the order in which the topics came first.
    pub topics: Vec<(Arc<str>, OutgoingEvents)>,
    /// Number of events that are not to be sent.
    pub filtered: usize,
    /// Room for the events of each topic, up to this number of topics: together, no more than the
    /// batch needs.
    room: (usize, usize),
}

impl SortedEvents {
    pub fn add(&mut self, topic: &Arc<str>, outgoing: OutgoingEvent) {
        // A batch has few topics, and neighbours often share one.
        let same = |other: &Arc<str>| Arc::ptr_eq(other, topic) || other == topic;
        match self.topics.iter_mut().rev().find(|(other, _)| same(other)) {
            Some((_, events)) => events.push(outgoing),
            None => {
                let (room, topics) = self.room;
                let has_room = self.topics.len() < topics;
                let mut events = OutgoingEvents::with_room(if has_room { room } else { 0 });
                events.push(outgoing);
                self.topics.push((Arc::clone(topic), events));
            }
        }
    }
}

impl EventSorter {
    /// Sorts the events of a batch. An event that goes to several topics is listed under each.
    ///
    /// # Errors
    /// An event that can't be delivered and that `dead_letter.policy` does not park, or one that
    /// no route takes where that ends the relay.
    pub fn sort(&mut self, events: Vec<Event>) -> Result<SortedEvents> {
        let topics = self.usual_topics.max(1);
        let room = (events.len().div_ceil(topics), topics);
        let mut sorted = SortedEvents { room, ..SortedEvents::default() };
        for event in events {
            self.sort_one(event, &mut sorted)?;
        }
        self.usual_topics = sorted.topics.len();
        Ok(sorted)
    }

    fn sort_one(&mut self, event: Event, to: &mut SortedEvents) -> Result<()> {
        if let Some(refusal) = event.refusal() {
            let error = refusal.error.clone();
            return self.refuse(event, error, None, to);
        }
        if let Some(lane) = self.handlers.lane(&event) {
            to.add(lane, OutgoingEvent::with_default_record(event));
            return Ok(());
        }
        match self.route(event, to)? {
            None => Ok(()),
            Some((event, error)) => self.refuse(event, error, None, to),
        }
    }

    /// Adds an event under its topics. Gives one back that can go nowhere, with the reason.
    pub fn route(&mut self, event: Event, to: &mut SortedEvents) -> Result<Option<(Event, Error)>> {
        if self.topics_of_handlers.without_kafka() {
            let kind = event.aggregate_type();
            let what = format!("no handler ends with events of {kind:?}, and there is no Kafka");
            return Ok(Some((event, Error::new(ErrorKind::HandlerFailed, what))));
        }
        match self.routing.route(event) {
            Routed::One(topic, outgoing) => to.add(&topic, outgoing),
            Routed::Several(all) => {
                all.into_iter().for_each(|(topic, outgoing)| to.add(&topic, outgoing))
            }
            Routed::Filtered(outgoing) => {
                to.filtered += 1;
                if let Some(lane) = &self.filtered_lane {
                    to.add(lane, outgoing);
                }
            }
            Routed::Refused(event, error) => return Ok(Some((event, error))),
            Routed::Stop(error) => return Err(error),
        }
        Ok(None)
    }

    /// Adds an event under the topic that a handler chose for it.
    ///
    /// # Errors
    /// The reason why the topic is not allowed.
    pub fn route_to_chosen(
        &mut self,
        event: Event,
        topic: &Arc<str>,
        to: &mut SortedEvents,
    ) -> Result<()> {
        self.topics_of_handlers.check(topic)?;
        to.add(topic, self.routing.unrouted(event));
        Ok(())
    }

    /// Adds an event under the dead letters, if that is the policy. `from` is the topic that
    /// refused it, or the lane of the handler that had it.
    pub fn refuse(
        &mut self,
        event: Event,
        error: Error,
        from: Option<&Arc<str>>,
        to: &mut SortedEvents,
    ) -> Result<()> {
        let holds = self.dead_letters.policy == RefusalPolicy::HoldAggregate;
        // What has no aggregate holds nothing back.
        if holds && !event.aggregate_type().is_empty() {
            let event = event.refused(Refusal::first_held(error, from.cloned()));
            to.add(&Arc::from(HELD_LANE), OutgoingEvent::with_default_record(event));
            return Ok(());
        }
        let event = self.dead_letter(event, error, from)?;
        to.add(&self.dead_letters.topic, OutgoingEvent::with_default_record(event));
        Ok(())
    }

    /// Turns an event into a dead letter, if that is the policy.
    fn dead_letter(&self, event: Event, error: Error, from: Option<&Arc<str>>) -> Result<Event> {
        match self.dead_letters.policy {
            RefusalPolicy::DeadLetter | RefusalPolicy::HoldAggregate => {
                error!(self.log, "event goes to the dead letters"; "event" => ?event,
                    "from" => from.map_or("", |lane| lane), "error" => %error);
                let handler = from.and_then(|lane| HandlerLaneNames::handler(lane)).map(Into::into);
                // An event that a handler refuses belongs to no topic.
                let topic = from.filter(|_| handler.is_none()).cloned();
                self.status.dead_lettered();
                self.status.parked(&event, topic.as_deref(), &error);
                Ok(event.refused(Refusal { topic, handler, ..Refusal::new(error) }))
            }
            RefusalPolicy::Stop => Err(error),
            RefusalPolicy::Block => {
                let what = "an event that can't be delivered blocks all behind it";
                Err(Error::new(ErrorKind::RecordBlocked, what).caused_by(error))
            }
        }
    }
}
