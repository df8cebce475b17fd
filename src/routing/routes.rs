//! All routes: which takes an event, and the records that it becomes.

use std::sync::Arc;

use super::{
    RoutingSettings,
    names::{default_topic, prefix_of},
    own_topics::OwnTopics,
    pattern::Captures,
    plan::{OutgoingEvent, RecordPlan},
    route::Route,
    settings::Unrouted,
    template::Values,
};
use crate::{
    Error, ErrorKind, Event, Result,
    format::{self, Format, FormatInput, Schema, SchemaRef, SubjectStrategy},
    mistake::Mistake,
    proto::OutboxEvent,
    record::Record,
};

/// The routes of a configuration, in their order.
pub(crate) struct Routes {
    routes: Vec<Route>,
    unrouted: Unrouted,
    format: Format,
    subject: SubjectStrategy,
    prefix: String,
    own_topics: OwnTopics,
}

/// What is decided for an event without a look at its contents.
#[derive(Default)]
pub(super) struct RouteChoice {
    /// Which route takes it.
    pub route: Option<usize>,
    pub captures: Captures,
}

/// Why an event that no route takes is not sent.
pub(super) enum UnroutedAction {
    /// Sends it to its default topic.
    Send,
    /// Skips it; it counts as done.
    Ignore,
    /// Sends it to the dead letters.
    Refuse(Error),
    /// Ends the relay.
    Stop(Error),
}

/// What becomes of an event.
pub(crate) enum Decision {
    /// It goes to these topics, each with its record.
    Records(Vec<(String, OutgoingEvent)>),
    /// It is not sent, and counts as done.
    Filtered,
    /// It is parked.
    Refused(Error),
    /// The relay ends.
    Stop(Error),
}

impl Routes {
    /// Reads the routes of a configuration.
    ///
    /// # Errors
    /// The first that can't be used.
    pub fn new(settings: impl Into<RoutingSettings>) -> Result<Self, Mistake> {
        let settings = settings.into();
        let own_topics = OwnTopics::new(settings.clone());
        let RoutingSettings { routes: given, unrouted, format, subject, topic_prefix, .. } =
            settings;
        let mut routes = Vec::<Route>::new();
        for (index, route) in given.iter().enumerate() {
            let name = format!("route[{index}]");
            let route = Route::new(route, &name, &topic_prefix, &own_topics)?;
            if let Some(other) = routes.iter().position(|other| other.covers(&route)) {
                let problem = format!("is never reached: route[{other}] takes all that it would");
                return Err(Mistake { setting: name, value: Some("a table".into()), problem });
            }
            routes.push(route);
        }
        Ok(Routes { routes, unrouted, format, subject, prefix: topic_prefix, own_topics })
    }

    /// True where every event goes to its usual topic as it is.
    pub fn is_plain(&self) -> bool {
        self.routes.is_empty() && self.format == Format::Protobuf
    }

    /// True where events of the same types are always taken by the same route.
    pub fn decides_by_types(&self) -> bool {
        !self.routes.iter().any(Route::depends_on_contents)
    }

    /// True where that depends on the event type.
    pub fn looks_at_event_type(&self) -> bool {
        self.routes.iter().any(Route::looks_at_event_type)
    }

    /// True where the topics of that route are the same for all events of the same types.
    pub fn has_topics_by_type(&self, route: usize) -> bool {
        self.routes.get(route).is_some_and(Route::has_topics_by_type)
    }

    /// True for a topic to which events may go, as far as that can be told from its name; `prefixes`
    /// are those of what no route takes.
    pub fn may_send_to(&self, topic: &str, prefixes: &[&str]) -> bool {
        let usual = |prefix: &&str| {
            let rest = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|kind| !kind.is_empty())
        };
        self.own_topics.role(topic).is_none()
            && (prefixes.iter().any(usual)
                || self.routes.iter().any(|route| route.may_send_to(topic, prefixes)))
    }

    /// The topics that routes name for all their events, whatever is in these.
    pub fn named_topics(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.routes.iter().flat_map(|route| route.named_topics(&self.prefix)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The first route that takes the event.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] where metadata is needed and can't be read.
    pub(super) fn choose(&self, event: &Event) -> Result<RouteChoice> {
        let mut captures = Captures::default();
        let metadata = self.routes.iter().any(Route::matches_metadata);
        let envelope = if metadata { Some(event.decode()?) } else { None };
        let route = self
            .routes
            .iter()
            .position(|route| route.matches(event, envelope.as_ref(), &mut captures));
        if route.is_none() {
            captures.clear();
        }
        Ok(RouteChoice { route, captures })
    }

    /// True for a route that sends nothing.
    pub fn drops(&self, route: usize) -> bool {
        self.routes.get(route).is_some_and(|route| route.drop)
    }

    /// The topics of an event that is taken by a route.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] for one that Kafka does not allow.
    pub(super) fn topics(&self, choice: &RouteChoice, event: &Event) -> Result<Vec<String>> {
        let prefix = prefix_of(&self.prefix, event);
        let Some((index, route)) = self.selected(choice) else {
            let topic = default_topic(prefix, event)?;
            self.own_topics.check(&topic)?;
            return Ok(vec![topic]);
        };
        let needed = !route.has_topics_by_type();
        let envelope = if needed { Some(event.decode()?) } else { None };
        let (envelope, captures) = (envelope.as_ref(), &choice.captures);
        let values = Values { event, prefix, envelope, captures };
        route.render_topics(values, &self.own_topics).map_err(unsendable(index))
    }

    /// True where the event's record is the usual one.
    pub(super) fn has_default_record(&self, choice: &RouteChoice, event: &Event) -> bool {
        let route = self.selected(choice).map(|(_, route)| route);
        self.format_of(route, event).is_none() && !route.is_some_and(Route::changes_record)
    }

    /// Whether the event can be sent, as far as its route says so: the event is refused whole
    /// then, and not by one topic after the other.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why not.
    pub(super) fn check(&self, choice: &RouteChoice, event: &Event) -> Result<()> {
        let Some((index, route)) = self.selected(choice).filter(|(_, route)| route.may_refuse())
        else {
            return Ok(());
        };
        let envelope = if route.needs_metadata() { Some(event.decode()?) } else { None };
        let (envelope, captures) = (envelope.as_ref(), &choice.captures);
        let values = Values { event, prefix: prefix_of(&self.prefix, event), envelope, captures };
        route
            .render_key(values)
            .and_then(|_| route.render_partition(values))
            .map_err(unsendable(index))?;
        Ok(())
    }

    /// The record that the event becomes.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why there can be none.
    pub(super) fn record(&self, choice: &RouteChoice, event: &Event) -> Result<Record> {
        let selected = self.selected(choice);
        let format = self.format_of(selected.map(|(_, route)| route), event);
        let prefix = prefix_of(&self.prefix, event);
        let needed = format.is_some() || selected.is_some_and(|(_, route)| route.needs_metadata());
        let envelope = if needed { event.decode()? } else { OutboxEvent::default() };
        let input = FormatInput { event, envelope: &envelope, prefix };
        let mut record = match format {
            Some(format) => format::render(format, input)?,
            None => format::default_record(event),
        };
        if let Some((index, route)) = selected {
            let (envelope, captures) = (Some(&envelope), &choice.captures);
            let values = Values { event, prefix, envelope, captures };
            route.apply(&mut record, values).map_err(unsendable(index))?;
        }
        Ok(record)
    }

    /// The schema that the value of its record is written by in a topic; none for a record
    /// without.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why that can't be told.
    pub(super) fn schema_ref(
        &self,
        choice: &RouteChoice,
        event: &Event,
        topic: &str,
    ) -> Result<Option<SchemaRef>> {
        let selected = self.selected(choice);
        let format = self.format_of(selected.map(|(_, route)| route), event);
        let Some(format) = format.filter(|format| format.has_schema()) else { return Ok(None) };
        let tombstone = event.row().is_some_and(|row| row.is_tombstone);
        if tombstone && format == Format::ConfluentPayload {
            return Ok(None);
        }
        let [subject, schema] = match selected {
            Some((_, route)) if route.is_tombstone() => return Ok(None),
            Some((index, route)) => {
                let needed = route.needs_metadata();
                let envelope = if needed { Some(event.decode()?) } else { None };
                let (envelope, captures) = (envelope.as_ref(), &choice.captures);
                let prefix = prefix_of(&self.prefix, event);
                let values = Values { event, prefix, envelope, captures };
                route.render_schema(values).map_err(unsendable(index))?
            }
            None => [None, None],
        };
        let schema = schema.unwrap_or_else(|| event.event_type().to_owned());
        let schema = Schema::of(format, || schema);
        Ok(schema.map(|schema| SchemaRef::new(schema, subject, self.subject, topic)))
    }

    /// True where events of which all is in their envelope are sent as they are.
    pub(super) fn keeps_default_record(&self, choice: &RouteChoice) -> bool {
        let route = self.selected(choice).map(|(_, route)| route);
        let format = route.and_then(|route| route.format).unwrap_or(self.format);
        format == Format::Protobuf && !route.is_some_and(Route::changes_record)
    }

    /// True where events that no route takes go to their usual topics.
    pub(super) fn sends_unrouted(&self) -> bool {
        self.unrouted == Unrouted::Default
    }

    /// What becomes of an event that no route takes.
    pub(super) fn unrouted_action(&self, event: &Event) -> UnroutedAction {
        let error = || {
            let (kind, what) = (event.aggregate_type(), event.event_type());
            refused(format!("no [[route]] takes an event {what:?} of aggregate type {kind:?}"))
        };
        match self.unrouted {
            Unrouted::Default => UnroutedAction::Send,
            Unrouted::Ignore => UnroutedAction::Ignore,
            Unrouted::DeadLetter => UnroutedAction::Refuse(error()),
            Unrouted::Stop => {
                UnroutedAction::Stop(error().remedy("add one, or set kafka.unrouted"))
            }
        }
    }

    /// What becomes of one event, and the route that says so.
    pub fn decide(self: &Arc<Self>, event: &Event) -> (Option<usize>, Decision) {
        match self.choose(event) {
            Ok(choice) => (choice.route, self.decision(choice, event)),
            Err(error) => (None, Decision::Refused(error)),
        }
    }

    fn decision(self: &Arc<Self>, choice: RouteChoice, event: &Event) -> Decision {
        match choice.route {
            Some(route) if self.drops(route) => return Decision::Filtered,
            Some(_) => {}
            None => match self.unrouted_action(event) {
                UnroutedAction::Send => {}
                UnroutedAction::Ignore => return Decision::Filtered,
                UnroutedAction::Refuse(error) => return Decision::Refused(error),
                UnroutedAction::Stop(error) => return Decision::Stop(error),
            },
        }
        let topics = match self.topics(&choice, event) {
            Ok(topics) => topics,
            Err(error) => return Decision::Refused(error),
        };
        if let Err(error) = self.check(&choice, event) {
            return Decision::Refused(error);
        }
        let usual = self.has_default_record(&choice, event);
        let plan = (!usual).then(|| Arc::new(RecordPlan::new(self, choice)));
        let sent = || OutgoingEvent { event: event.clone(), plan: plan.clone() };
        Decision::Records(topics.into_iter().map(|topic| (topic, sent())).collect())
    }

    /// What its record is made by; none where the event is sent as it is.
    ///
    /// A payload that a table sends by itself stays so, unless its route says otherwise.
    fn format_of(&self, route: Option<&Route>, event: &Event) -> Option<Format> {
        let payload_alone = event.row().is_some_and(|row| row.payload_is_value);
        let format = route.and_then(|route| route.format);
        let usual = format.unwrap_or(self.format) == Format::Protobuf && !payload_alone;
        match format {
            None if payload_alone => None,
            _ if usual => None,
            given => Some(given.unwrap_or(self.format)),
        }
    }

    /// What the record of an event that a route takes is made by, in a word.
    pub fn format_name(&self, route: Option<usize>, event: &Event) -> Format {
        let route = route.and_then(|route| self.routes.get(route));
        self.format_of(route, event).unwrap_or_default()
    }

    fn selected(&self, choice: &RouteChoice) -> Option<(usize, &Route)> {
        let index = choice.route?;
        Some((index, self.routes.get(index)?))
    }
}

/// The error of an event that its route can't send.
fn unsendable(route: usize) -> impl Fn(String) -> Error {
    move |why| refused(format!("route[{route}] can't send the event: {why}"))
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::RecordRefused, what)
}
