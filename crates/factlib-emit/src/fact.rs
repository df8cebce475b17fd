//! Facts: what happened, and the limits of its fields.

use std::{
    collections::BTreeMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use prost::Message;
use serde_core::Serialize;
use uuid::Uuid;

use crate::{
    Error, ErrorKind, Result,
    proto::{OutboxEvent, TraceInfo},
    reserved, trace,
};

/// Kafka's limit for a topic's name, 249 characters, less the shortest prefix and its dot.
const TYPE_MAX: usize = 247;

/// Something that happened, to be emitted in the transaction that made it happen.
///
/// Its id is a new UUID of version 7, its time is now, unless they are given.
#[derive(Clone)]
#[must_use = "a fact does nothing until it is emitted"]
pub struct Fact {
    id: Uuid,
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    payload: Bytes,
    created_at_ns: i64,
    metadata: BTreeMap<String, String>,
    trace: Option<TraceInfo>,
}

impl Fact {
    /// `event_type` happened to the aggregate `aggregate_id` of type `aggregate_type`.
    ///
    /// The type is the last part of the topic's name, unless a route says otherwise, and must be
    /// legal there: letters, digits, `.`, `_` and `-`, at most 247 of them. `emit` refuses any
    /// other type, whatever the routes say. The id is the record's key:
    /// facts of one aggregate keep their order.
    pub fn new(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
    ) -> Self {
        Fact {
            id: Uuid::now_v7(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.into(),
            event_type: event_type.into(),
            payload: Bytes::new(),
            created_at_ns: now_us() * 1_000,
            metadata: BTreeMap::new(),
            trace: None,
        }
    }

    /// Sets the payload, in whatever format its consumers expect.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Sets a protobuf message as the payload, content type `application/x-protobuf`.
    pub fn payload_message(self, message: &impl Message) -> Self {
        self.payload(message.encode_to_vec()).content_type("application/x-protobuf")
    }

    /// Sets JSON as the payload, content type `application/json`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFact`] for what JSON can't express, such as a map whose keys
    /// are no strings.
    pub fn payload_json(self, value: &(impl Serialize + ?Sized)) -> Result<Self> {
        let json = serde_json::to_vec(value)
            .map_err(|error| invalid("the payload makes no JSON".into()).caused_by(error))?;
        Ok(self.payload(json).content_type("application/json"))
    }

    /// Sets the media type of the payload; consumers find it in the metadata.
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        self.metadata(reserved::CONTENT_TYPE, content_type)
    }

    /// Sets the record's key in place of the aggregate id. Facts keep their order where they
    /// share a key, so all of an aggregate should.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.metadata(reserved::KEY, key)
    }

    /// Sets the record's partition, in place of the one by key. If the topic has no such
    /// partition, the relay makes a dead letter of the event.
    pub fn partition(self, partition: u16) -> Self {
        self.metadata(reserved::PARTITION, partition.to_string())
    }

    /// Sets the record's time, Unix milliseconds, in place of the time at which it is sent.
    pub fn timestamp_ms(self, timestamp_ms: u64) -> Self {
        self.metadata(reserved::TIMESTAMP_MS, timestamp_ms.to_string())
    }

    /// Adds an entry to the metadata; some keys are [`reserved`].
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the event id, in place of a new one.
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets the trace that the fact belongs to; sent as the headers `trace_id` and `span_id`.
    pub fn trace(mut self, trace_id: impl Into<String>, span_id: impl Into<String>) -> Self {
        let trace = self.trace.get_or_insert_default();
        trace.trace_id = trace_id.into();
        trace.span_id = span_id.into();
        self
    }

    /// Adds an entry to the trace's metadata; each entry becomes a header.
    pub fn trace_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.trace.get_or_insert_default().metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the time at which it happened, Unix nanoseconds, in place of now. A row keeps the
    /// microseconds.
    pub fn created_at_ns(mut self, created_at_ns: i64) -> Self {
        self.created_at_ns = created_at_ns;
        self
    }

    /// The event on the wire.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFact`] with the field and what is allowed.
    pub fn to_event(&self) -> Result<OutboxEvent> {
        self.validate()?;
        Ok(OutboxEvent {
            id: self.id.to_string(),
            aggregate_type: self.aggregate_type.clone(),
            aggregate_id: self.aggregate_id.clone(),
            event_type: self.event_type.clone(),
            payload: self.payload.clone(),
            created_at: self.created_at_ns,
            metadata: self.metadata.clone(),
            trace_info: self.trace.clone(),
        })
    }

    /// The event id, given or new.
    pub fn event_id(&self) -> Uuid {
        self.id
    }

    fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("aggregate_type", &self.aggregate_type),
            ("aggregate_id", &self.aggregate_id),
            ("event_type", &self.event_type),
        ] {
            if value.is_empty() {
                return Err(invalid(format!("{name} is empty")));
            }
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !self.aggregate_type.bytes().all(legal) {
            return Err(invalid(format!(
                "aggregate_type {:?} makes no topic name: letters, digits, '.', '_' and '-' are allowed",
                self.aggregate_type
            )));
        }
        if self.aggregate_type.len() > TYPE_MAX {
            return Err(invalid(format!(
                "aggregate_type of {} characters makes no topic name: at most {TYPE_MAX} are allowed",
                self.aggregate_type.len()
            )));
        }
        let parent = self.trace.iter().find_map(|trace| trace.metadata.get(reserved::TRACEPARENT));
        match parent {
            Some(parent) if trace::ids(parent).is_none() => {
                Err(invalid(format!("traceparent {parent:?} is not W3C's")))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fact")
            .field("id", &self.id)
            .field("aggregate_type", &self.aggregate_type)
            .field("aggregate_id", &self.aggregate_id)
            .field("event_type", &self.event_type)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidFact, what)
}

/// Now, as precise as PostgreSQL's `timestamptz`: a row holds the same time as a message.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_fact_has_an_id_and_a_time() {
        let event = Fact::new("user", "user123", "user.created").to_event().expect("valid");
        let id: Uuid = event.id.parse().expect("a UUID");
        assert_eq!(id.get_version_num(), 7);
        let age_ns = now_us() * 1_000 - event.created_at;
        assert!((0..60_000_000_000).contains(&age_ns), "{age_ns}");
    }

    #[test]
    fn a_fact_that_could_not_be_delivered_names_its_field() {
        let traced = Fact::new("a", "1", "e").traceparent("00-x");
        for (fact, text) in [
            (Fact::new("", "1", "e"), "aggregate_type is empty"),
            (Fact::new("a", "", "e"), "aggregate_id is empty"),
            (Fact::new("a", "1", ""), "event_type is empty"),
            (
                Fact::new("a b", "1", "e"),
                "aggregate_type \"a b\" makes no topic name: letters, digits, '.', '_' and '-' are allowed",
            ),
            (
                Fact::new("t".repeat(248), "1", "e"),
                "aggregate_type of 248 characters makes no topic name: at most 247 are allowed",
            ),
            (traced, "traceparent \"00-x\" is not W3C's"),
        ] {
            let error = fact.to_event().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidFact);
            assert_eq!(error.to_string(), text);
        }
        let map = std::collections::BTreeMap::from([(vec![1], 2)]);
        let error = Fact::new("a", "1", "e").payload_json(&map).expect_err("keys are texts");
        assert!(error.to_string().starts_with("the payload makes no JSON: "), "{error}");
    }

    #[test]
    fn debug_shows_no_payload() {
        let fact = Fact::new("a", "1", "e").payload("secret");
        assert!(!format!("{fact:?}").contains("secret"));
    }
}
