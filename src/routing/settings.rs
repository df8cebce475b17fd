//! Settings of the routing: `[[route]]` and the defaults for events without one.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use crate::format::{Format, SubjectStrategy};

/// Routes, and the defaults where a route sets nothing.
///
/// A [`Config`](crate::config::Config) converts into it.
#[derive(Clone, Debug)]
pub struct RoutingSettings {
    pub(crate) routes: Vec<Route>,
    pub(crate) unrouted: Unrouted,
    /// The format of records whose route sets none.
    pub(crate) format: Format,
    pub(crate) subject: SubjectStrategy,
    pub(crate) topic_prefix: String,
    pub(crate) dead_letter_topic: String,
    pub(crate) position_topic: String,
    /// None if no receipts are kept in a topic.
    pub(crate) receipt_topic: Option<String>,
    /// Maximum number of topics that events may go to.
    pub(crate) max_topics: usize,
}

/// One `[[route]]`: the events it takes, and the records they become.
///
/// All texts except those in [`matches`](Self::matches) are templates with the event's fields, such
/// as `{prefix}.{aggregate_type}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Route {
    /// Conditions on the event; without any, the route takes every event.
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// Topics to send the event to; `{prefix}.{aggregate_type}` if empty.
    #[serde(deserialize_with = "one_or_many")]
    pub topic: Vec<String>,
    /// The record's key; the aggregate id if not set.
    pub key: Option<String>,
    /// The record's partition number; chosen by the key if not set.
    #[serde(deserialize_with = "text_or_number")]
    pub partition: Option<String>,
    /// Additional headers; they replace headers of the same name.
    pub headers: BTreeMap<String, String>,
    /// Sends the record without a value.
    pub tombstone: bool,
    /// Drops the event: it is not sent, and counts as done.
    pub drop: bool,
    /// The record's format; `kafka.format` if not set.
    pub format: Option<Format>,
    /// The registry subject of its schema; by `schema_registry.subject` if not set.
    pub subject: Option<String>,
    /// The full name of its payload's schema; the event type if not set.
    pub schema: Option<String>,
}

/// Conditions of a [`Route`]; an event has to meet all that are set.
///
/// Each is an exact text, a glob (`order.*`) or a regular expression (`/^order\.(?<what>.+)$/` or
/// `regex:^order`). Templates may use its named groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteMatch {
    /// Condition on the aggregate type.
    pub aggregate_type: Option<String>,
    /// Condition on the event type.
    pub event_type: Option<String>,
    /// Condition on the aggregate id.
    pub aggregate_id: Option<String>,
    /// Conditions on metadata, by key; a missing key matches nothing.
    pub metadata: BTreeMap<String, String>,
}

impl Route {
    /// Takes the events of an aggregate type, which may be a pattern as in [`RouteMatch`].
    ///
    /// ```
    /// use factlib::config::{Format, Route};
    ///
    /// let orders = Route::of("order").to("{prefix}.orders").to("{prefix}.audit").format(Format::Json);
    /// let all_others = Route::default().to("{prefix}.{aggregate_type}");
    /// ```
    pub fn of(aggregate_type: impl Into<String>) -> Self {
        Route::matching(RouteMatch::default().aggregate_type(aggregate_type))
    }

    /// Takes the events that match.
    pub fn matching(matches: RouteMatch) -> Self {
        Route { matches, ..Route::default() }
    }

    /// Adds a topic.
    #[must_use]
    pub fn to(mut self, topic: impl Into<String>) -> Self {
        self.topic.push(topic.into());
        self
    }

    /// Sets the record's key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the number of the record's partition.
    #[must_use]
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Adds a header, or replaces that of the same name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sends records without a value.
    #[must_use]
    pub fn tombstone(mut self) -> Self {
        self.tombstone = true;
        self
    }

    /// Sends nothing; the events count as done.
    #[must_use]
    pub fn dropped(mut self) -> Self {
        self.drop = true;
        self
    }

    /// Sets the format of the records.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Sets the subject of the record's schema.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the full name of the payload's schema.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }
}

impl RouteMatch {
    /// Requires this aggregate type.
    #[must_use]
    pub fn aggregate_type(mut self, pattern: impl Into<String>) -> Self {
        self.aggregate_type = Some(pattern.into());
        self
    }

    /// Requires this event type.
    #[must_use]
    pub fn event_type(mut self, pattern: impl Into<String>) -> Self {
        self.event_type = Some(pattern.into());
        self
    }

    /// Requires this aggregate id.
    #[must_use]
    pub fn aggregate_id(mut self, pattern: impl Into<String>) -> Self {
        self.aggregate_id = Some(pattern.into());
        self
    }

    /// Requires this metadata under a key.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, pattern: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), pattern.into());
        self
    }
}

/// Treatment of an event that no [`Route`] takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Unrouted {
    /// Sends it to `{prefix}.{aggregate_type}`.
    #[default]
    Default,
    /// Refuses it; `dead_letter.policy` decides.
    DeadLetter,
    /// Skips it; it counts as done.
    Ignore,
    /// Stops the relay.
    Stop,
}

impl Unrouted {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Unrouted::Default => "default",
            Unrouted::DeadLetter => "dead-letter",
            Unrouted::Ignore => "ignore",
            Unrouted::Stop => "stop",
        }
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = from.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    from.deserialize_any(Texts)
}

fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Text;

    impl<'de> Visitor<'de> for Text {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number or a template")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }
    }

    from.deserialize_any(Text)
}
