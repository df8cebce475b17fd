//! Explains which route takes an event and the records it becomes, for `factlib route --explain`.
//! Nothing is sent.

use std::sync::Arc;

use super::{
    RoutingSettings,
    plan::OutgoingEvent,
    routes::{Decision, Routes},
};
use crate::{
    Error, Event, Lsn, Result,
    format::{self, Format},
    proto::OutboxEvent,
    record::Record,
};
use bytes::Bytes;
use prost::Message;

/// The route that takes an event, and the outcome.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Index in [`Config::route`](crate::config::Config::route); none if no route takes the event
    /// and `kafka.unrouted` decides.
    pub route: Option<usize>,
    /// The outcome for the event.
    pub outcome: RoutingOutcome,
}

/// The outcome of routing one event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RoutingOutcome {
    /// The event is sent, once to each topic.
    Sent(Vec<ExplainedRecord>),
    /// The event is not sent, and counts as done.
    Filtered,
    /// The event is refused; `dead_letter.policy` decides what happens to it.
    Refused(Error),
    /// The relay stops with this error.
    Stops(Error),
}

/// A record as it would be sent to one topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExplainedRecord {
    /// The topic it goes to.
    pub topic: String,
    /// The key, which decides the partition unless one is set.
    pub key: Bytes,
    /// The partition; none if the key decides.
    pub partition: Option<i32>,
    /// The format of the value.
    pub format: Format,
    /// The registry subject of the value's schema. The value is shown without the schema's id.
    pub subject: Option<String>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The value; none for a tombstone.
    pub value: Option<Bytes>,
}

/// Explains how an event would be routed by these settings, which a
/// [`Config`](crate::config::Config) converts into. Nothing is sent.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for invalid routes,
/// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused) for an event without an
/// aggregate type.
pub fn explain(settings: impl Into<RoutingSettings>, event: &OutboxEvent) -> Result<Explanation> {
    let routes = Arc::new(Routes::new(settings).map_err(|mistake| mistake.error(None))?);
    let event = Event::parse(event.encode_to_vec().into(), Lsn::ZERO)?;
    let (route, decision) = routes.decide(&event);
    let format = routes.format_name(route, &event);
    let record = |(topic, outgoing): (String, OutgoingEvent)| {
        let subject = outgoing.schema_ref(&topic)?.map(|schema_ref| schema_ref.subject);
        let record = match &outgoing.plan {
            Some(plan) => plan.record(&outgoing.event)?,
            None => format::default_record(&outgoing.event),
        };
        let Record { key, value, headers, partition, .. } = record;
        let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Ok(ExplainedRecord { topic, key, partition, format, subject, headers, value })
    };
    let outcome = match decision {
        Decision::Records(records) => {
            let records = records.into_iter().map(record).collect::<Result<_>>();
            records.map_or_else(RoutingOutcome::Refused, RoutingOutcome::Sent)
        }
        Decision::Filtered => RoutingOutcome::Filtered,
        Decision::Refused(error) => RoutingOutcome::Refused(error),
        Decision::Stop(error) => RoutingOutcome::Stops(error),
    };
    Ok(Explanation { route, outcome })
}
