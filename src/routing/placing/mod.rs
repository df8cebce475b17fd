//! Where the router sends events: decisions that hold for a type are made once.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::{
    RoutingSettings,
    names::TopicNames,
    own_topics::OwnTopics,
    plan::{OutgoingEvent, RecordPlan},
    routes::{Choice, Routes, Unsent},
};
use crate::{Error, Event, Result, mistake::Mistake};

/// Pairs of types whose decisions are kept; a program that makes types of ids has more.
const KNOWN_MAX: usize = 10_000;

/// The routes, the topics' names, and what was decided so far.
pub(crate) struct Routing {
    routes: Arc<Routes>,
    names: TopicNames,
    /// Events go to their usual topics as they are.
    plain: bool,
    /// The same route takes all events of the same types.
    by_types: bool,
    with_event_type: bool,
    /// By aggregate type.
    known: HashMap<Box<str>, OfType>,
    count: usize,
}

/// What is decided for the events of an aggregate type.
#[derive(Default)]
struct OfType {
    /// Where the event type does not matter.
    all: Option<Arc<Known>>,
    by_event_type: HashMap<Box<str>, Arc<Known>>,
}

/// What is decided for all events of the same types.
struct Known {
    plan: Arc<RecordPlan>,
    drops: bool,
    /// None where these differ from event to event.
    topics: Option<Vec<Arc<str>>>,
    /// The one topic of events that are sent as they are.
    as_it_is: Option<Arc<str>>,
}

/// Those of all events of the same types, or of one event.
type Topics<'a> = Cow<'a, [Arc<str>]>;

/// Where an event goes.
pub(crate) enum Placed {
    /// To one topic.
    One(Arc<str>, OutgoingEvent),
    /// To several.
    Several(Vec<(Arc<str>, OutgoingEvent)>),
    /// Nowhere; it is done.
    Filtered,
    /// To the dead letters.
    Refused(Event, Error),
    /// Nowhere, and the relay ends.
    Stop(Error),
}

impl Routing {
    /// The routing of a configuration.
    ///
    /// # Errors
    /// The first route that can't be used.
    pub fn new(settings: impl Into<RoutingSettings>) -> Result<Self, Mistake> {
        let settings = settings.into();
        let routes = Arc::new(Routes::new(settings.clone())?);
        Ok(Routing {
            names: TopicNames::new(
                settings.topic_prefix.clone(),
                settings.max_topics,
                OwnTopics::new(settings),
            ),
            plain: routes.is_plain(),
            by_types: routes.decides_by_types(),
            with_event_type: routes.looks_at_event_type(),
            known: HashMap::new(),
            count: 0,
            routes,
        })
    }

    /// Where the event goes, with the record it becomes there.
    pub fn place(&mut self, event: Event) -> Placed {
        if self.plain {
            return match self.names.usual(&event) {
                Ok(topic) => Placed::One(topic, OutgoingEvent::usual(event)),
                Err(error) => Placed::Refused(event, error),
            };
        }
        if let Some(topic) = self.topic_as_it_is(&event) {
            return Placed::One(topic, OutgoingEvent::usual(event));
        }
        let known = match self.known(&event) {
            Ok(known) => known,
            Err(error) => return Placed::Refused(event, error),
        };
        if known.drops {
            return Placed::Filtered;
        }
        if known.plan.choice().route.is_none() {
            match self.routes.unrouted(&event) {
                Unsent::No => {}
                Unsent::Ignored => return Placed::Filtered,
                Unsent::Refused(error) => return Placed::Refused(event, error),
                Unsent::Stop(error) => return Placed::Stop(error),
            }
        }
        match self.plans(&known, &event) {
            Err(error) => Placed::Refused(event, error),
            Ok((topics, plan)) => match &topics[..] {
                [topic] => Placed::One(Arc::clone(topic), OutgoingEvent { event, plan }),
                topics => {
                    let sent = |topic| {
                        let outgoing = OutgoingEvent { event: event.clone(), plan: plan.clone() };
                        (Arc::clone(topic), outgoing)
                    };
                    Placed::Several(topics.iter().map(sent).collect())
                }
            },
        }
    }

    /// The event, as it goes to a topic that a handler names: in the format of all.
    pub fn unrouted(&self, event: Event) -> OutgoingEvent {
        let choice = Choice::default();
        let usual = self.plain || self.routes.is_usual(&choice, &event);
        let plan = (!usual).then(|| Arc::new(RecordPlan::new(&self.routes, choice)));
        OutgoingEvent { event, plan }
    }

    /// The topics of an event that is sent, and how its record is made.
    fn plans<'a>(
        &mut self,
        known: &'a Known,
        event: &Event,
    ) -> Result<(Topics<'a>, Option<Arc<RecordPlan>>)> {
        let choice = known.plan.choice();
        let topics = match &known.topics {
            Some(topics) => Cow::Borrowed(&topics[..]),
            None => Cow::Owned(self.topics(choice, event)?),
        };
        self.routes.check(choice, event)?;
        let usual = self.routes.is_usual(choice, event);
        Ok((topics, (!usual).then(|| Arc::clone(&known.plan))))
    }

    fn topics(&mut self, choice: &Choice, event: &Event) -> Result<Vec<Arc<str>>> {
        if choice.route.is_none() {
            return Ok(vec![self.names.usual(event)?]);
        }
        let names = self.routes.topics(choice, event)?;
        names.into_iter().map(|name| self.names.named(name)).collect()
    }

    /// The topic of an event of known types that is sent there, and there only, as it is.
    fn topic_as_it_is(&self, event: &Event) -> Option<Arc<str>> {
        self.of_types(event).filter(|_| !says_more(event))?.as_it_is.clone()
    }

    fn of_types(&self, event: &Event) -> Option<&Arc<Known>> {
        let known = self.known.get(event.aggregate_type())?;
        match self.with_event_type {
            true => known.by_event_type.get(event.event_type()),
            false => known.all.as_ref(),
        }
    }

    /// What is decided for events of these types, or for this one.
    fn known(&mut self, event: &Event) -> Result<Arc<Known>> {
        if !self.by_types || says_more(event) {
            return self.learn(event, false).map(Arc::new);
        }
        if let Some(known) = self.of_types(event) {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(self.learn(event, true)?);
        if self.count >= KNOWN_MAX {
            self.known.clear();
            self.count = 0;
        }
        self.count += 1;
        let of_type = self.known.entry(event.aggregate_type().into()).or_default();
        match self.with_event_type {
            true => {
                of_type.by_event_type.insert(event.event_type().into(), Arc::clone(&known));
            }
            false => of_type.all = Some(Arc::clone(&known)),
        }
        Ok(known)
    }

    fn learn(&mut self, event: &Event, for_all: bool) -> Result<Known> {
        let choice = self.routes.choose(event)?;
        let drops = choice.route.is_some_and(|route| self.routes.drops(route));
        let same = choice.route.is_some_and(|route| self.routes.has_topics_by_type(route));
        // An unrouted event's topic may be illegal, and yet it may be ignored.
        let topics = match for_all && same && !drops {
            true => Some(self.topics(&choice, event)?),
            false => None,
        };
        let as_it_is = match &topics {
            Some(topics) => <&[_; 1]>::try_from(&topics[..]).ok().map(|[topic]| Arc::clone(topic)),
            None if for_all && choice.route.is_none() && self.routes.sends_unrouted() => {
                Some(self.names.usual(event)?)
            }
            None => None,
        };
        let as_it_is = as_it_is.filter(|_| self.routes.changes_nothing(&choice));
        let plan = Arc::new(RecordPlan::new(&self.routes, choice));
        Ok(Known { plan, drops, topics, as_it_is })
    }
}

/// True for a row whose table says more of its record than its types do: a prefix of its
/// topics, or a payload alone.
fn says_more(event: &Event) -> bool {
    event.row().is_some_and(|row| row.topic_prefix.is_some() || row.payload_is_value)
}

#[cfg(test)]
mod tests;
