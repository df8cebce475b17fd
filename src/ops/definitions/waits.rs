//! Who waited for what, and what is tried again.

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
    vec![
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
