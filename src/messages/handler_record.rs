//! Output of a handler: records, or events unchanged, that go on to Kafka.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Event, Result, event::Change};

/// A record that a handler sends on to Kafka: the event's own record, with changes.
///
/// ```no_run
/// # fn example(event: &factlib::Event) -> factlib::handlers::Record {
/// use factlib::handlers::Record;
///
/// Record::of(event).topic("audit.users").payload("{}").header("tenant", "7")
/// # }
/// ```
///
/// Two records are equal if they are of the same event and have the same changes.
#[derive(Clone, Debug)]
#[must_use]
pub struct Record {
    event: Event,
    topic: Option<Arc<str>>,
    change: Change,
}

/// One item that a handler sends on in place of an event.
#[derive(Debug)]
pub(crate) enum HandlerOutput {
    /// The event at this index of the batch, unchanged.
    Event(usize),
    Record(Box<Record>),
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let event = |record: &Record| (record.event.stream_position(), record.event.raw().clone());
        (event(self), &self.topic, &self.change) == (event(other), &other.topic, &other.change)
    }
}

impl From<Record> for HandlerOutput {
    fn from(record: Record) -> Self {
        HandlerOutput::Record(Box::new(record))
    }
}

impl Record {
    /// Starts with the record of the event, unchanged.
    pub fn of(event: &Event) -> Self {
        Record { event: event.clone(), topic: None, change: Change::default() }
    }

    /// Sends it to this topic instead of the event's own. The topic is created if it is missing.
    pub fn topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Sets the key. Kafka keeps the order only among records with the same key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.change.key = Some(key.into());
        self
    }

    /// Sets the payload in the `OutboxEvent`. Fields that this version of factlib does not know are
    /// then left out.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.change.payload = Some(payload.into());
        self
    }

    /// Sets the event type.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.change.event_type = Some(event_type.into());
        self
    }

    /// Sets the event id. Several records of one event need different ids, because consumers drop
    /// ids that they have seen. The id must be the same each time the event is handled.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.change.id = Some(id.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        let name: Arc<str> = name.into();
        self.change.headers.push(((*name).into(), Some(value.into())));
        self
    }

    /// The original event.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The topic set with [`topic`](Self::topic), if any.
    pub fn chosen_topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// The key set with [`key`](Self::key), if any.
    pub fn chosen_key(&self) -> Option<&str> {
        self.change.key.as_deref()
    }

    /// The payload set with [`payload`](Self::payload), if any.
    pub fn chosen_payload(&self) -> Option<&[u8]> {
        self.change.payload.as_deref()
    }

    /// The headers added with [`header`](Self::header).
    pub fn chosen_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers = self.change.headers.iter();
        headers.map(|(name, value)| (&**name, value.as_deref().unwrap_or_default()))
    }

    /// Returns the original event, the changed event or the reason why it is invalid, and the
    /// chosen topic.
    pub(crate) fn into_parts(self) -> (Event, Result<Event>, Option<Arc<str>>) {
        let Record { event, topic, change } = self;
        let changed = event.changed(change);
        (event, changed, topic)
    }
}
