//! Metrics of waits, of retries, and of topics that have changed.

use super::{Family, Kind, counter, labelled};
use crate::status::PipelineStatus;

pub(super) fn families(status: &PipelineStatus) -> Vec<Family<'_>> {
    let topics = || status.topics.iter();
    let retried = topics().filter(|(_, topic)| topic.handler_retries > 0);
    let actor_waits = status.actors.iter().flat_map(|(actor, of)| {
        let waits = of.blocked_seconds.iter();
        waits.map(|(what, seconds)| ([("actor", *actor), ("by", what.name())], *seconds))
    });
    let topic_waits = topics().flat_map(|(topic, of)| {
        let waits = of.blocked_seconds.iter();
        waits.map(|(what, seconds)| ([("topic", topic.as_str()), ("by", what.name())], *seconds))
    });
    let partitions = topics()
        .filter_map(|(name, topic)| Some(([("topic", name.as_str())], topic.partitions? as u64)));
    let refused = topics().filter(|(_, topic)| topic.refused.is_some());
    vec![
        labelled(
            Kind::Gauge,
            "topic_partitions",
            "Partitions of a topic; where they become more, aggregates move",
            partitions,
        ),
        labelled(
            Kind::Gauge,
            "topic_refused",
            "1 while Kafka does not take a topic, so that its events go by dead_letter.policy",
            refused.map(|(name, _)| ([("topic", name.as_str())], 1)),
        ),
        counter("dead_letters", "Events that went to the dead letters", status.dead_letters),
        labelled(
            Kind::Counter,
            "handler_retries",
            "Calls of a handler that failed and are tried again",
            retried.map(|(name, topic)| ([("topic", name.as_str())], topic.handler_retries)),
        ),
        counter(
            "checkpoint_errors",
            "Failures to save the position, after each of which it is tried again",
            status.checkpoint_errors,
        ),
        labelled(
            Kind::Counter,
            "blocked_seconds",
            "How long an actor waited, by what for",
            actor_waits,
        ),
        labelled(
            Kind::Counter,
            "topic_blocked_seconds",
            "How long a topic's events waited for more than Kafka's acknowledgement, by what for",
            topic_waits,
        ),
    ]
}
