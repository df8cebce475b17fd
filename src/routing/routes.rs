//! All routes of a configuration: picks the route for an event, its topics and its record.

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

/// The route that takes an event.
#[derive(Default)]
pub(super) struct RouteChoice {
    /// Index of the route; none if no route takes the event.
    pub route: Option<usize>,
    pub captures: Captures,
}

/// The way an event is treated that no route takes.
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

/// The outcome of routing one event.
pub(crate) enum Decision {
    /// It is sent to these topics.
    Records(Vec<(String, OutgoingEvent)>),
    /// It is not sent, and counts as done.
    Filtered,
    /// It is refused, with this reason.
    Refused(Error),
    /// The relay stops with this error.
    Stop(Error),
}

impl Routes {
    /// Parses and checks the routes of a configuration.
    ///
    /// # Errors
    /// The first route that is invalid.
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

    /// True if every event goes to its default topic as its default record.
    pub fn is_plain(&self) -> bool {
        self.routes.is_empty() && self.format == Format::Protobuf
    }

    /// True if events of the same types are always taken by the same route.
    pub fn decides_by_types(&self) -> bool {
        !self.routes.iter().any(Route::depends_on_contents)
    }

    /// True if routing depends on the event type.
    pub fn looks_at_event_type(&self) -> bool {
        self.routes.iter().any(Route::looks_at_event_type)
    }

    /// True if the topics of that route are the same for all events of the same types.
    pub fn has_topics_by_type(&self, route: usize) -> bool {
        self.routes.get(route).is_some_and(Route::has_topics_by_type)
    }

    /// True if events may go to the topic, judged by its name. `prefixes` are those of default
    /// topics.
    pub fn may_send_to(&self, topic: &str, prefixes: &[&str]) -> bool {
        let usual = |prefix: &&str| {
            let rest = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|kind| !kind.is_empty())
        };
        self.own_topics.role(topic).is_none()
            && (prefixes.iter().any(usual)
                || self.routes.iter().any(|route| route.may_send_to(topic, prefixes)))
    }

    /// Topics of routes that are the same for every event.
    pub fn named_topics(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.routes.iter().flat_map(|route| route.named_topics(&self.prefix)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Finds the first route that takes the event.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if a route needs metadata and it can't be decoded.
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

    /// True if the route drops its events.
    pub fn drops(&self, route: usize) -> bool {
        self.routes.get(route).is_some_and(|route| route.drop)
    }

    /// The topics of an event by its route, or its default topic.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] for a name that is not allowed.
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

    /// True if the event is sent as its default record.
    pub(super) fn has_default_record(&self, choice: &RouteChoice, event: &Event) -> bool {
        let route = self.selected(choice).map(|(_, route)| route);
        self.format_of(route, event).is_none() && !route.is_some_and(Route::changes_record)
    }

    /// Checks that the route can render key and partition, so that an event is refused once and not
    /// by one topic after the other.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] with the reason.
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

    /// Makes the event's record.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if the event can't be one.
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

    /// The schema of the record's value in a topic; none if its format has no schema.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if the event lacks what the schema's name is made of.
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

    /// True if an event is sent as its default record, unless its table's row overrides something.
    pub(super) fn keeps_default_record(&self, choice: &RouteChoice) -> bool {
        let route = self.selected(choice).map(|(_, route)| route);
        let format = route.and_then(|route| route.format).unwrap_or(self.format);
        format == Format::Protobuf && !route.is_some_and(Route::changes_record)
    }

    /// True if events that no route takes go to their default topics.
    pub(super) fn sends_unrouted(&self) -> bool {
        self.unrouted == Unrouted::Default
    }

    /// The treatment of an event that no route takes, by `kafka.unrouted`.
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

    /// Routes one event without a cache. Returns the route that took it and the outcome.
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

    /// The format of the event's record; none for the default record.
    ///
    /// A table's row whose payload is sent alone keeps that, unless its route sets a format.
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

    /// The format of the event's record, `protobuf` for the default record.
    pub fn format_name(&self, route: Option<usize>, event: &Event) -> Format {
        let route = route.and_then(|route| self.routes.get(route));
        self.format_of(route, event).unwrap_or_default()
    }

    fn selected(&self, choice: &RouteChoice) -> Option<(usize, &Route)> {
        let index = choice.route?;
        Some((index, self.routes.get(index)?))
    }
}

/// Makes the error of an event that its route can't send.
fn unsendable(route: usize) -> impl Fn(String) -> Error {
    move |why| refused(format!("route[{route}] can't send the event: {why}"))
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::RecordRefused, what)
}
