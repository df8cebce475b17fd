//! The routes as the router uses them: an event goes in, its topics and plans come out. Decisions
//! that hold for all events of a type are made once and cached.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    RoutingSettings,
    names::TopicNames,
    own_topics::OwnTopics,
    plan::{OutgoingEvent, RecordPlan},
    routes::{RouteChoice, Routes, UnroutedAction},
};
use crate::{Error, Event, Result, mistake::Mistake};

/// Maximum number of cached decisions. A program that puts ids into its types would need more.
const MAX_CACHED_DECISIONS: usize = 10_000;

/// The routes, the topic names, and the decisions cached so far.
pub(crate) struct CachedRoutes {
    routes: Arc<Routes>,
    names: TopicNames,
    /// All events go to their default topics as default records.
    plain: bool,
    /// All events of the same types are taken by the same route.
    by_types: bool,
    with_event_type: bool,
    /// Cached decisions by aggregate type.
    decisions: HashMap<Box<str>, EventTypeDecisions, RandomState>,
    cached: usize,
}

/// Decisions for the events of one aggregate type.
#[derive(Default)]
struct EventTypeDecisions {
    /// The decision if the event type does not matter.
    all: Option<Arc<TypeDecision>>,
    by_event_type: HashMap<Box<str>, Arc<TypeDecision>, RandomState>,
}

/// The decision for all events of the same types.
struct TypeDecision {
    plan: Arc<RecordPlan>,
    drops: bool,
    /// The topics; none if they differ from event to event.
    topics: Option<Vec<Arc<str>>>,
    /// The topic, if there is one only and events go there as default records.
    unchanged_topic: Option<Arc<str>>,
}

/// Topics of all events of the same types (borrowed), or of one event (owned).
type Topics<'a> = Cow<'a, [Arc<str>]>;

/// The outcome of routing one event.
pub(crate) enum Routed {
    /// It goes to one topic.
    One(Arc<str>, OutgoingEvent),
    /// It goes to several topics.
    Several(Vec<(Arc<str>, OutgoingEvent)>),
    /// It is not sent, and counts as done. Its plan has the route that drops it, if one does.
    Filtered(OutgoingEvent),
    /// It is refused, with this reason.
    Refused(Event, Error),
    /// The relay stops with this error.
    Stop(Error),
}

impl CachedRoutes {
    /// Builds the routes of a configuration.
    ///
    /// # Errors
    /// The first route that is invalid.
    pub fn new(settings: impl Into<RoutingSettings>) -> Result<Self, Mistake> {
        let settings = settings.into();
        let routes = Arc::new(Routes::new(settings.clone())?);
        Ok(CachedRoutes {
            names: TopicNames::new(
                settings.topic_prefix.clone(),
                settings.max_topics,
                OwnTopics::new(settings),
            ),
            plain: routes.is_plain(),
            by_types: routes.decides_by_types(),
            with_event_type: routes.looks_at_event_type(),
            decisions: HashMap::default(),
            cached: 0,
            routes,
        })
    }

    /// Routes an event: finds its topics and the plan for its record.
    pub fn route(&mut self, event: Event) -> Routed {
        if self.plain {
            return match self.names.default_topic(&event) {
                Ok(topic) => Routed::One(topic, OutgoingEvent::with_default_record(event)),
                Err(error) => Routed::Refused(event, error),
            };
        }
        if let Some(topic) = self.cached_unchanged_topic(&event) {
            return Routed::One(topic, OutgoingEvent::with_default_record(event));
        }
        let decision = match self.decision(&event) {
            Ok(decision) => decision,
            Err(error) => return Routed::Refused(event, error),
        };
        if decision.drops {
            return filtered(event, &decision);
        }
        if decision.plan.choice().route.is_none() {
            match self.routes.unrouted_action(&event) {
                UnroutedAction::Send => {}
                UnroutedAction::Ignore => return filtered(event, &decision),
                UnroutedAction::Refuse(error) => return Routed::Refused(event, error),
                UnroutedAction::Stop(error) => return Routed::Stop(error),
            }
        }
        match self.plans(&decision, &event) {
            Err(error) => Routed::Refused(event, error),
            Ok((topics, plan)) => match &topics[..] {
                [topic] => Routed::One(Arc::clone(topic), OutgoingEvent { event, plan }),
                topics => {
                    let sent = |topic| {
                        let outgoing = OutgoingEvent { event: event.clone(), plan: plan.clone() };
                        (Arc::clone(topic), outgoing)
                    };
                    Routed::Several(topics.iter().map(sent).collect())
                }
            },
        }
    }

    /// Prepares an event for a topic that a handler chose: no route applies, only the default
    /// format.
    pub fn unrouted(&self, event: Event) -> OutgoingEvent {
        let choice = RouteChoice::default();
        let usual = self.plain || self.routes.has_default_record(&choice, &event);
        let plan = (!usual).then(|| Arc::new(RecordPlan::new(&self.routes, choice)));
        OutgoingEvent { event, plan }
    }

    /// The topics of an event that is sent, and the plan for its record.
    fn plans<'a>(
        &mut self,
        decision: &'a TypeDecision,
        event: &Event,
    ) -> Result<(Topics<'a>, Option<Arc<RecordPlan>>)> {
        let choice = decision.plan.choice();
        let topics = match &decision.topics {
            Some(topics) => Cow::Borrowed(&topics[..]),
            None => Cow::Owned(self.topics(choice, event)?),
        };
        self.routes.check(choice, event)?;
        let usual = self.routes.has_default_record(choice, event);
        Ok((topics, (!usual).then(|| Arc::clone(&decision.plan))))
    }

    fn topics(&mut self, choice: &RouteChoice, event: &Event) -> Result<Vec<Arc<str>>> {
        if choice.route.is_none() {
            return Ok(vec![self.names.default_topic(event)?]);
        }
        let names = self.routes.topics(choice, event)?;
        names.into_iter().map(|name| self.names.intern(name)).collect()
    }

    /// The cached topic of an event that goes there alone, as its default record.
    fn cached_unchanged_topic(&self, event: &Event) -> Option<Arc<str>> {
        self.cached_decision(event).filter(|_| !overrides_record(event))?.unchanged_topic.clone()
    }

    fn cached_decision(&self, event: &Event) -> Option<&Arc<TypeDecision>> {
        let decision = self.decisions.get(event.aggregate_type())?;
        match self.with_event_type {
            true => decision.by_event_type.get(event.event_type()),
            false => decision.all.as_ref(),
        }
    }

    /// The decision for events of these types, or for this event alone.
    fn decision(&mut self, event: &Event) -> Result<Arc<TypeDecision>> {
        if !self.by_types || overrides_record(event) {
            return self.decide(event, false).map(Arc::new);
        }
        if let Some(decision) = self.cached_decision(event) {
            return Ok(Arc::clone(decision));
        }
        let decision = Arc::new(self.decide(event, true)?);
        if self.cached >= MAX_CACHED_DECISIONS {
            self.decisions.clear();
            self.cached = 0;
        }
        self.cached += 1;
        let for_aggregate_type = self.decisions.entry(event.aggregate_type().into()).or_default();
        match self.with_event_type {
            true => {
                for_aggregate_type
                    .by_event_type
                    .insert(event.event_type().into(), Arc::clone(&decision));
            }
            false => for_aggregate_type.all = Some(Arc::clone(&decision)),
        }
        Ok(decision)
    }

    fn decide(&mut self, event: &Event, for_all: bool) -> Result<TypeDecision> {
        let choice = self.routes.choose(event)?;
        let drops = choice.route.is_some_and(|route| self.routes.drops(route));
        let same = choice.route.is_some_and(|route| self.routes.has_topics_by_type(route));
        // An unrouted event may have an illegal topic and still be ignored, so don't look yet.
        let topics = match for_all && same && !drops {
            true => Some(self.topics(&choice, event)?),
            false => None,
        };
        let unchanged_topic = match &topics {
            Some(topics) => <&[_; 1]>::try_from(&topics[..]).ok().map(|[topic]| Arc::clone(topic)),
            None if for_all && choice.route.is_none() && self.routes.sends_unrouted() => {
                Some(self.names.default_topic(event)?)
            }
            None => None,
        };
        let unchanged_topic = unchanged_topic.filter(|_| self.routes.keeps_default_record(&choice));
        let plan = Arc::new(RecordPlan::new(&self.routes, choice));
        Ok(TypeDecision { plan, drops, topics, unchanged_topic })
    }
}

fn filtered(event: Event, decision: &TypeDecision) -> Routed {
    Routed::Filtered(OutgoingEvent { event, plan: Some(Arc::clone(&decision.plan)) })
}

/// True for a row whose table changes its record: a topic prefix of its own, or the payload alone.
fn overrides_record(event: &Event) -> bool {
    event.row().is_some_and(|row| row.topic_prefix.is_some() || row.payload_is_value)
}

#[cfg(test)]
mod tests;
