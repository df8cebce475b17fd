//! Checks topic names, shares one copy of each, and limits how many there are.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::own_topics::OwnTopics;
use crate::{Error, ErrorKind, Event, Result, record::legal_topic};

/// The topic names used so far, and the default topic of each aggregate type,
/// `{prefix}.{aggregate_type}`. An outbox table may have its own prefix.
pub(crate) struct TopicNames {
    prefix: String,
    max: usize,
    own_topics: OwnTopics,
    names: HashSet<Arc<str>>,
    default_topics: DefaultTopics,
    /// Default topics under the prefixes of outbox tables.
    default_topics_by_prefix: HashMap<Arc<str>, DefaultTopics, RandomState>,
}

/// Default topics by aggregate type.
type DefaultTopics = HashMap<Box<str>, Arc<str>, RandomState>;

impl TopicNames {
    /// Creates an empty set that takes at most `max` names and none of the relay's own topics.
    pub fn new(prefix: impl Into<String>, max: usize, own: OwnTopics) -> Self {
        TopicNames {
            prefix: prefix.into(),
            max,
            own_topics: own,
            names: HashSet::new(),
            default_topics: DefaultTopics::default(),
            default_topics_by_prefix: HashMap::default(),
        }
    }

    /// The prefix of the event's default topic.
    pub fn prefix_of<'a>(&'a self, event: &'a Event) -> &'a str {
        prefix_of(&self.prefix, event)
    }

    /// The event's default topic.
    pub fn default_topic(&mut self, event: &Event) -> Result<Arc<str>> {
        let aggregate_type = event.aggregate_type();
        let own = event.row().and_then(|row| row.topic_prefix.as_ref());
        let known = match own {
            Some(prefix) => self.default_topics_by_prefix.get(prefix),
            None => Some(&self.default_topics),
        };
        if let Some(topic) = known.and_then(|known| known.get(aggregate_type)) {
            return Ok(Arc::clone(topic));
        }
        let topic = self.intern(default_topic(self.prefix_of(event), event)?)?;
        let known = match own {
            Some(prefix) => self.default_topics_by_prefix.entry(Arc::clone(prefix)).or_default(),
            None => &mut self.default_topics,
        };
        known.insert(aggregate_type.into(), Arc::clone(&topic));
        Ok(topic)
    }

    /// Returns the shared copy of a legal topic name. A new name counts toward the limit.
    pub fn intern(&mut self, name: String) -> Result<Arc<str>> {
        if let Some(topic) = self.names.get(name.as_str()) {
            return Ok(Arc::clone(topic));
        }
        self.own_topics.check(&name)?;
        if self.names.len() >= self.max {
            let what = format!("{name} would be one topic more than the {} allowed", self.max);
            let remedy = "are aggregate types made of ids? kafka.topics.max sets the limit";
            return Err(Error::new(ErrorKind::RecordRefused, what).remedy(remedy));
        }
        let topic: Arc<str> = name.into();
        self.names.insert(Arc::clone(&topic));
        Ok(topic)
    }
}

/// The topic prefix of the event's outbox table, or else the pipeline's `prefix`.
pub(super) fn prefix_of<'a>(prefix: &'a str, event: &'a Event) -> &'a str {
    event.row().and_then(|row| row.topic_prefix.as_deref()).unwrap_or(prefix)
}

/// Makes the default topic name, `{prefix}.{aggregate_type}`.
///
/// # Errors
/// [`ErrorKind::RecordRefused`] if Kafka does not allow that name.
pub(super) fn default_topic(prefix: &str, event: &Event) -> Result<String> {
    let aggregate_type = event.aggregate_type();
    let name = format!("{prefix}.{aggregate_type}");
    let what = || format!("aggregate type {aggregate_type:?} does not make a legal topic name");
    legal_topic(&name, what, "emit another aggregate_type")?;
    Ok(name)
}
