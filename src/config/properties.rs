//! Rules for `kafka.properties`: secrets are redacted, and properties that factlib's promises rest
//! on can't be set.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use super::secret::REDACTED;
use crate::kafka::is_secret;

/// The reason why `property` can't be set to `value`; `None` if it can.
pub(crate) fn refusal(property: &str, value: &str) -> Option<&'static str> {
    Some(match property {
        "bootstrap.servers" | "metadata.broker.list" => "kafka.brokers sets it",
        "acks" | "request.required.acks" => {
            "factlib needs acks=all: PostgreSQL forgets what Kafka acknowledged"
        }
        "enable.idempotence"
        | "max.in.flight"
        | "max.in.flight.requests.per.connection"
        | "enable.gapless.guarantee"
        | "queuing.strategy" => "factlib sets it: the order of an aggregate's events rests on it",
        "message.timeout.ms" | "delivery.timeout.ms" | "retries" | "message.send.max.retries" => {
            "factlib sets it: an outage is waited for, and a record that gives up would break the order"
        }
        "delivery.report.only.error" | "dr_cb" | "dr_msg_cb" => {
            "factlib sets it: acknowledgement rests on delivery reports"
        }
        "transactional.id" => {
            "factlib makes it of cluster and slot, so that an instance that was replaced is fenced"
        }
        "allow.auto.create.topics" => {
            "factlib creates topics itself, as kafka.topics has it: brokers would make them by their own defaults"
        }
        "transaction.timeout.ms" => "delivery.transaction_timeout sets it",
        "partitioner" if value == "random" => {
            "the events of one aggregate would go to several partitions, out of order"
        }
        _ => return None,
    })
}

/// Properties with secrets redacted.
pub(crate) struct Shown<'a>(pub &'a BTreeMap<String, String>);

impl<'a> Shown<'a> {
    fn pairs(&self) -> impl Iterator<Item = (&'a String, &'a str)> {
        self.0.iter().map(|(k, v)| (k, if is_secret(k) { REDACTED } else { v.as_str() }))
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

pub(crate) fn serialize<S: Serializer>(
    properties: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Shown(properties).pairs().collect::<BTreeMap<_, _>>().serialize(serializer)
}
