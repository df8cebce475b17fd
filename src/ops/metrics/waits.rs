//! Who waited for what, what is tried again, and how large batches are.

use std::fmt;

use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{MetricType, counter::ConstCounter},
};

use super::Metrics;
use crate::status::{PipelineStatus, Status};

pub(super) fn encode(
    to: &mut Metrics<'_>,
    counters: &Status,
    status: &PipelineStatus,
) -> fmt::Result {
    let (events, bytes) = counters.batches();
    let help = "Events of a batch, as the router gets it";
    events.encode(to.family("batch_events", help, MetricType::Histogram)?)?;
    let help = "Bytes of the window that a batch takes";
    bytes.encode(to.family("batch_bytes", help, MetricType::Histogram)?)?;
    to.counter("dead_letters", "Events that went to the dead letters", status.dead_letters)?;
    let topics = status.topics.iter();
    to.counters(
        "handler_retries",
        "Calls of a handler that failed and are tried again",
        topics
            .filter(|(_, topic)| topic.handler_retries > 0)
            .map(|(name, topic)| (("topic", name.as_str()), topic.handler_retries)),
    )?;
    to.counter(
        "checkpoint_errors",
        "Failures to save the position, after each of which it is tried again",
        status.checkpoint_errors,
    )?;
    blocked(to, status)
}

/// Who waited for what.
fn blocked(to: &mut Metrics<'_>, status: &PipelineStatus) -> fmt::Result {
    let mut family =
        to.family("blocked_seconds", "How long an actor waited, by what for", MetricType::Counter)?;
    for (actor, of) in &status.actors {
        for (what, seconds) in &of.blocked_seconds {
            let labels = [("actor", *actor), ("by", what.name())];
            ConstCounter::new(*seconds).encode(family.encode_family(&labels)?)?;
        }
    }
    let help =
        "How long a topic's events waited for more than Kafka's acknowledgement, by what for";
    let mut family = to.family("topic_blocked_seconds", help, MetricType::Counter)?;
    for (topic, of) in &status.topics {
        for (what, seconds) in &of.blocked_seconds {
            let labels = [("topic", topic.as_str()), ("by", what.name())];
            ConstCounter::new(*seconds).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
