//! One `[[route]]` with its patterns and templates parsed: matches events and shapes their records.

use super::{
    own_topics::OwnTopics,
    pattern::{Captures, Pattern},
    settings::Route as Config,
    template::{FIELDS, Template, Values},
};
use crate::{
    Event,
    format::Format,
    mistake::Mistake,
    proto::OutboxEvent,
    record::{Record, is_legal_in_topic, is_legal_topic},
};

/// The topic of a route that sets none.
const DEFAULT_TOPIC: &str = "{prefix}.{aggregate_type}";

/// A validated route.
pub(super) struct Route {
    conditions: Vec<(Field, Pattern)>,
    pub drop: bool,
    topics: Vec<Template>,
    key: Option<Template>,
    partition: Option<Template>,
    headers: Vec<(String, Template)>,
    tombstone: bool,
    pub format: Option<Format>,
    subject: Option<Template>,
    schema: Option<Template>,
}

/// The field of an event that a condition is about.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    AggregateType,
    EventType,
    AggregateId,
    Metadata(String),
}

impl Route {
    /// Parses and checks the route. Errors call it `name`, such as `route[0]`.
    pub fn new(
        config: &Config,
        name: &str,
        prefix: &str,
        own: &OwnTopics,
    ) -> Result<Self, Mistake> {
        let wrong = |setting: &str, text: &str, problem: String| Mistake {
            setting: format!("{name}.{setting}"),
            value: Some(format!("{text:?}")),
            problem,
        };
        let mut conditions = Vec::new();
        let matches = &config.matches;
        let fields = [
            (Field::AggregateType, &matches.aggregate_type),
            (Field::EventType, &matches.event_type),
            (Field::AggregateId, &matches.aggregate_id),
        ];
        let fields = fields.into_iter().filter_map(|(field, text)| Some((field, text.as_ref()?)));
        let metadata = matches.metadata.iter();
        let metadata = metadata.map(|(key, text)| (Field::Metadata(key.clone()), text));
        for (field, text) in fields.chain(metadata) {
            let setting = format!("match.{}", field.setting());
            let pattern = Pattern::parse(text).map_err(|problem| wrong(&setting, text, problem))?;
            if let Some(group) = pattern.captures().find(|group| FIELDS.contains(group)) {
                let problem = format!("the group {group} has the name of a field");
                return Err(wrong(&setting, text, problem));
            }
            // Every event has this field and every text matches: no condition is needed.
            if !pattern.matches_everything() || matches!(field, Field::Metadata(_)) {
                conditions.push((field, pattern));
            }
        }
        let captures: Vec<_> =
            conditions.iter().flat_map(|(_, pattern)| pattern.captures()).collect();
        let template = |setting: &str, text: &str| {
            Template::parse(text, &captures).map_err(|problem| wrong(setting, text, problem))
        };
        let optional = |setting: &str, text: &Option<String>| {
            text.as_deref().map(|text| template(setting, text)).transpose()
        };
        let usual = [DEFAULT_TOPIC.to_owned()];
        let topics = if config.topic.is_empty() { &usual[..] } else { &config.topic };
        let mut read = Vec::<Template>::new();
        for text in topics {
            let topic = template("topic", text)?;
            check_topic(&topic, prefix, own).map_err(|problem| wrong("topic", text, problem))?;
            if read.iter().any(|other| other.text() == text) {
                return Err(wrong("topic", text, "is there twice".into()));
            }
            read.push(topic);
        }
        let mut headers = Vec::new();
        for (key, text) in &config.headers {
            let setting = format!("headers.{key}");
            // Kafka's client takes names of headers as C strings.
            if key.is_empty() || key.contains('\0') {
                return Err(wrong(&setting, text, "a header needs a name".into()));
            }
            headers.push((key.clone(), template(&setting, text)?));
        }
        let partition = optional("partition", &config.partition)?;
        if let Some(number) = partition.as_ref().and_then(|template| template.constant(prefix))
            && partition_number(&number).is_none()
        {
            return Err(wrong("partition", &number, "expected the number of a partition".into()));
        }
        let route = Route {
            drop: config.drop,
            topics: read,
            key: optional("key", &config.key)?,
            partition,
            headers,
            tombstone: config.tombstone,
            format: config.format,
            subject: optional("subject", &config.subject)?,
            schema: optional("schema", &config.schema)?,
            conditions,
        };
        if config.drop
            && *config != (Config { drop: true, matches: matches.clone(), ..Config::default() })
        {
            return Err(Mistake {
                setting: format!("{name}.drop"),
                value: Some("true".into()),
                problem: "a dropped event has no record; leave out all but match".into(),
            });
        }
        Ok(route)
    }

    /// Returns true if the route takes the event, and puts the named groups of its patterns into
    /// `captures`.
    pub fn matches(
        &self,
        event: &Event,
        envelope: Option<&OutboxEvent>,
        captures: &mut Captures,
    ) -> bool {
        captures.clear();
        self.conditions.iter().all(|(field, pattern)| {
            let text = match field {
                Field::AggregateType => Some(event.aggregate_type()),
                Field::EventType => Some(event.event_type()),
                Field::AggregateId => Some(event.aggregate_id()),
                Field::Metadata(key) => {
                    envelope.and_then(|envelope| envelope.metadata.get(key)).map(String::as_str)
                }
            };
            text.is_some_and(|text| pattern.matches(text, captures))
        })
    }

    /// True if this route certainly takes every event that `other` takes.
    pub fn covers(&self, other: &Route) -> bool {
        self.conditions.iter().all(|(field, pattern)| {
            other.conditions.iter().any(|(f, p)| f == field && pattern.covers(p))
        })
    }

    /// True if it may take one event and not another of the same types.
    pub fn depends_on_contents(&self) -> bool {
        let beyond = |field: &Field| matches!(field, Field::AggregateId | Field::Metadata(_));
        self.conditions.iter().any(|(field, _)| beyond(field))
    }

    /// True if it matches on the event type or has it in a topic name.
    pub fn looks_at_event_type(&self) -> bool {
        self.conditions.iter().any(|(field, _)| *field == Field::EventType)
            || self.topics.iter().any(Template::has_event_type)
    }

    /// True if it matches on metadata.
    pub fn matches_metadata(&self) -> bool {
        self.conditions.iter().any(|(field, _)| matches!(field, Field::Metadata(_)))
    }

    /// True if one of its templates uses metadata.
    pub fn needs_metadata(&self) -> bool {
        let more = self.headers.iter().map(|(_, template)| template);
        let more = more.chain(&self.key).chain(&self.partition).chain(&self.topics);
        let more = more.chain(&self.subject).chain(&self.schema);
        more.into_iter().any(Template::needs_metadata)
    }

    /// True if its topics are the same for all events of the same types.
    pub fn has_topics_by_type(&self) -> bool {
        !self.topics.iter().any(Template::differs_within_a_type)
    }

    /// True if it may send some event to the topic.
    pub fn may_send_to(&self, topic: &str, prefixes: &[&str]) -> bool {
        let may =
            |template: &Template| prefixes.iter().any(|prefix| template.can_render(topic, prefix));
        !self.drop && self.topics.iter().any(may)
    }

    /// Its topics that are the same for every event.
    pub fn named_topics(&self, prefix: &str) -> impl Iterator<Item = String> {
        let topics = if self.drop { &[] } else { &self.topics[..] };
        topics.iter().filter_map(move |template| template.constant(prefix))
    }

    /// True if it changes the record beyond topics and format.
    pub fn changes_record(&self) -> bool {
        let Route { key, partition, headers, tombstone, .. } = self;
        *tombstone || key.is_some() || partition.is_some() || !headers.is_empty()
    }

    /// True if its key or its partition can fail for some events.
    pub fn may_refuse(&self) -> bool {
        self.key.as_ref().is_some_and(Template::needs_metadata) || self.partition.is_some()
    }

    /// Renders the key, if it sets one.
    ///
    /// # Errors
    /// The metadata that the event lacks.
    pub fn render_key(&self, values: Values<'_>) -> Result<Option<String>, String> {
        let key = self.key.as_ref().map(|template| template.render(values)).transpose();
        key.map_err(missing_metadata("key"))
    }

    /// Renders the partition, if it sets one.
    ///
    /// # Errors
    /// The metadata that the event lacks, or a text that is no partition number.
    pub fn render_partition(&self, values: Values<'_>) -> Result<Option<i32>, String> {
        let Some(template) = &self.partition else { return Ok(None) };
        let text = template.render(values).map_err(missing_metadata("partition"))?;
        let number = partition_number(&text);
        number.map(Some).ok_or_else(|| format!("partition {text:?} is not a number"))
    }

    /// Renders the registry subject and the name of the payload's schema, if it sets them.
    ///
    /// # Errors
    /// The metadata that the event lacks.
    pub fn render_schema(&self, values: Values<'_>) -> Result<[Option<String>; 2], String> {
        let render = |of, template: &Option<Template>| {
            let text = template.as_ref().map(|template| template.render(values)).transpose();
            text.map_err(missing_metadata(of))
        };
        Ok([render("subject", &self.subject)?, render("schema", &self.schema)?])
    }

    /// True if its records have no value.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }

    /// Sets key, partition, headers and tombstone of a record as the route says.
    ///
    /// # Errors
    /// The metadata that the event lacks, or a text that is no partition number.
    pub fn apply(&self, record: &mut Record, values: Values<'_>) -> Result<(), String> {
        if let Some(key) = self.render_key(values)? {
            record.key = key.into();
        }
        if let Some(partition) = self.render_partition(values)? {
            record.partition = Some(partition);
        }
        for (name, template) in &self.headers {
            // A header whose metadata the event lacks is left out.
            if let Ok(text) = template.render(values) {
                record.set_header(name, text.into());
            }
        }
        if self.tombstone {
            record.value = None;
        }
        Ok(())
    }

    /// Renders the names of its topics for an event, without duplicates.
    ///
    /// # Errors
    /// The first name that is not allowed, or the metadata that the event lacks.
    pub fn render_topics(
        &self,
        values: Values<'_>,
        own: &OwnTopics,
    ) -> Result<Vec<String>, String> {
        let mut names = Vec::with_capacity(self.topics.len());
        for template in &self.topics {
            let name = template
                .render(values)
                .map_err(|key| missing_metadata(&format!("topic {:?}", template.text()))(key))?;
            if !is_legal_topic(&name) || own.role(&name).is_some() {
                return Err(format!(
                    "topic {:?} would be {name:?}, which is not allowed",
                    template.text()
                ));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Field {
    fn setting(&self) -> String {
        match self {
            Field::AggregateType => "aggregate_type".into(),
            Field::EventType => "event_type".into(),
            Field::AggregateId => "aggregate_id".into(),
            Field::Metadata(key) => format!("metadata.{key}"),
        }
    }
}

/// Makes the error of an event that lacks metadata for `of`.
fn missing_metadata(of: &str) -> impl Fn(&str) -> String {
    move |key| format!("{of}: it has no metadata {key}")
}

/// Parses the number of a partition.
fn partition_number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| *number >= 0)
}

fn check_topic(topic: &Template, prefix: &str, own: &OwnTopics) -> Result<(), String> {
    const ALLOWED: &str =
        "Kafka allows letters, digits, '.', '_' and '-' in a topic's name, and 249 of them";
    let legal = topic.fixed_text(prefix).all(|text| text.bytes().all(is_legal_in_topic));
    match topic.constant(prefix) {
        _ if !legal => Err(ALLOWED.into()),
        Some(name) if !is_legal_topic(&name) => Err(ALLOWED.into()),
        Some(name) => match own.role(&name) {
            Some(role) => Err(format!("that is {role}")),
            None => Ok(()),
        },
        None => Ok(()),
    }
}
