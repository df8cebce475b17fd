//! What a handler sends on in place of an event.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Event, Result, event::Change};

/// What goes on to Kafka for an event: the event's own record, but for what is changed.
///
/// ```no_run
/// # fn example(event: &factlib::Event) -> factlib::handlers::Record {
/// use factlib::handlers::Record;
///
/// Record::of(event).topic("audit.users").payload("{}").header("tenant", "7")
/// # }
/// ```
///
/// Two are equal where they are of the same event, changed in the same way.
#[derive(Clone, Debug)]
#[must_use]
pub struct Record {
    event: Event,
    topic: Option<Arc<str>>,
    change: Change,
}

/// What goes on in place of an event of a batch.
#[derive(Debug)]
pub(crate) enum HandlerOutput {
    /// The event at this place of the batch, as it is.
    Event(usize),
    Record(Box<Record>),
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let event = |record: &Record| (record.event.lsn(), record.event.raw().clone());
        (event(self), &self.topic, &self.change) == (event(other), &other.topic, &other.change)
    }
}

impl From<Record> for HandlerOutput {
    fn from(record: Record) -> Self {
        HandlerOutput::Record(Box::new(record))
    }
}

impl Record {
    /// The record of the event as it is.
    pub fn of(event: &Event) -> Self {
        Record { event: event.clone(), topic: None, change: Change::default() }
    }

    /// Goes to this topic, which is created where it is missing, in place of the event's own.
    pub fn topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// With another key. Kafka keeps the order of records of one key only.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.change.key = Some(key.into());
        self
    }

    /// With another payload in the `OutboxEvent`; fields that this version of factlib does
    /// not know are left out then.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.change.payload = Some(payload.into());
        self
    }

    /// With another event type.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.change.event_type = Some(event_type.into());
        self
    }

    /// With an event id of its own: consumers that drop what they have seen tell the records
    /// of one event by that. It must be the same each time that the event is handled.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.change.id = Some(id.into());
        self
    }

    /// With one more header.
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        let name: Arc<str> = name.into();
        self.change.headers.push(((*name).into(), Some(value.into())));
        self
    }

    /// The event that it is of, as that was.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The topic that was chosen for it.
    pub fn chosen_topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// The key that it was given.
    pub fn chosen_key(&self) -> Option<&str> {
        self.change.key.as_deref()
    }

    /// The payload that it was given.
    pub fn chosen_payload(&self) -> Option<&[u8]> {
        self.change.payload.as_deref()
    }

    /// The headers that it was given.
    pub fn chosen_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers = self.change.headers.iter();
        headers.map(|(name, value)| (&**name, value.as_deref().unwrap_or_default()))
    }

    /// The event as it was, as it is to be sent or why it can't be, and the topic that was chosen.
    pub(crate) fn into_parts(self) -> (Event, Result<Event>, Option<Arc<str>>) {
        let Record { event, topic, change } = self;
        let changed = event.changed(change);
        (event, changed, topic)
    }
}
