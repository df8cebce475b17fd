//! Defines the metrics of waits and retries, and of topics that changed or were refused.

use super::{Family, Kind, counter, gauge, labelled};
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
            "Partitions of a topic; if their number grows, aggregates move",
            partitions,
        ),
        labelled(
            Kind::Gauge,
            "topic_refused",
            "1 while Kafka refuses a topic and dead_letter.policy applies to its events",
            refused.map(|(name, _)| ([("topic", name.as_str())], 1)),
        ),
        counter("dead_letters", "Events that became dead letters", status.dead_letters),
        gauge(
            "held_events",
            "Events that are held in a table with their aggregates",
            status.held_events,
        ),
        gauge(
            "held_aggregates",
            "Aggregates whose events are held until they are redriven",
            status.held_aggregates,
        ),
        labelled(
            Kind::Counter,
            "handler_retries",
            "Failed calls of a handler that are retried",
            retried.map(|(name, topic)| ([("topic", name.as_str())], topic.handler_retries)),
        ),
        counter(
            "checkpoint_errors",
            "Failures to save the position; each is retried",
            status.checkpoint_errors,
        ),
        labelled(
            Kind::Counter,
            "blocked_seconds",
            "Time that an actor waited, by cause",
            actor_waits,
        ),
        labelled(
            Kind::Counter,
            "topic_blocked_seconds",
            "Time that a topic's events waited for anything but Kafka's acknowledgement, by cause",
            topic_waits,
        ),
    ]
}
