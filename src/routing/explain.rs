//! What an event becomes, for people: `factlib route --explain`.

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

/// Which route takes an event, and what it becomes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Its place in [`Config::route`](crate::config::Config::route); none where `kafka.unrouted` says what becomes of it.
    pub route: Option<usize>,
    /// What becomes of it.
    pub outcome: RoutingOutcome,
}

/// What becomes of an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RoutingOutcome {
    /// It is sent, once to each topic.
    Sent(Vec<ExplainedRecord>),
    /// It is not sent, and counts as done.
    Filtered,
    /// It is refused: what becomes of it is for `dead_letter.policy` to say.
    Refused(Error),
    /// The relay ends with this.
    Stops(Error),
}

/// A record.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExplainedRecord {
    /// Where it goes.
    pub topic: String,
    /// What decides on its partition.
    pub key: Bytes,
    /// None where the key decides.
    pub partition: Option<i32>,
    /// What it is made of.
    pub format: Format,
    /// Where the schema of its value is; the value is shown without the schema's id.
    pub subject: Option<String>,
    /// In their order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// None for a tombstone.
    pub value: Option<Bytes>,
}

/// Says what these settings, those of a [`Config`](crate::config::Config), make of an event; nothing
/// is sent.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for routes that can't be used,
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
