//! Finds the places at which events wait: a status in, the nodes that the page marks out.

use serde::Serialize;

use super::health::{server_is_silent, start_wait};
use crate::status::{BlockedBy, PipelineState, PipelineStatus, TopicStatus};

/// A node of the page's picture at which events wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Blocked {
    /// `postgresql`, `window`, `checkpointer`, `kafka`, or `topic:` and its name.
    pub place: String,
    /// The cause of the wait.
    pub by: BlockedBy,
    /// The reason in a sentence.
    pub why: String,
}

/// Lists the places at which events wait; none while everything flows.
pub(super) fn blocked(status: &PipelineStatus) -> Vec<Blocked> {
    let mut all = Vec::new();
    let mut add = |place: &str, by: BlockedBy, why: &str| {
        all.push(Blocked { place: place.to_owned(), by, why: why.to_owned() });
    };
    match &status.state {
        // The first generation asks the brokers before PostgreSQL.
        PipelineState::Retrying { error }
            if status.generation == 0 && status.kafka_error.is_some() =>
        {
            add("kafka", BlockedBy::Kafka, error);
        }
        PipelineState::Retrying { error } => add("postgresql", BlockedBy::Postgres, error),
        PipelineState::StandingBy { error } => add("postgresql", BlockedBy::Slot, error),
        // Such as the creation of the slot, which waits for open transactions.
        PipelineState::Starting => {
            if let Some((by, why)) = start_wait(status) {
                add(if by == BlockedBy::Kafka { "kafka" } else { "postgresql" }, by, why);
            }
        }
        _ if server_is_silent(status) => {
            add("postgresql", BlockedBy::Postgres, "asked for an answer, and has not answered yet");
        }
        _ => {}
    }
    for actor in status.actors.values() {
        let why = actor.last_error.as_deref();
        match actor.blocked_by {
            Some(by @ BlockedBy::Window) => {
                add("window", by, "full: reading goes on as Kafka acknowledges records")
            }
            Some(by @ BlockedBy::Store) => {
                add("checkpointer", by, why.unwrap_or("the position can't be saved"));
            }
            Some(by @ (BlockedBy::Standby | BlockedBy::Visibility)) => {
                add("postgresql", by, status.gate_waits_for.as_deref().unwrap_or("a commit"));
            }
            _ => {}
        }
    }
    for (name, topic) in &status.topics {
        let by = topic.blocked_by.or(topic.paused.then_some(BlockedBy::Pause));
        if let Some(by) = by.filter(|by| *by != BlockedBy::Kafka) {
            add(&format!("topic:{name}"), by, &reason(topic));
        }
    }
    // A topic that can't be opened may also be waiting for the brokers.
    let waits =
        |topic: &TopicStatus| matches!(topic.blocked_by, Some(BlockedBy::Kafka | BlockedBy::Topic));
    if let Some(error) = status.kafka_error.as_ref().filter(|_| status.topics.values().any(waits)) {
        add("kafka", BlockedBy::Kafka, error);
    }
    all
}

fn reason(topic: &TopicStatus) -> String {
    match (&topic.last_error, &topic.retrying) {
        _ if topic.paused => "paused".into(),
        (Some(error), _) if !topic.open => format!("not open: {error}"),
        _ if !topic.open => "opening".into(),
        (_, Some(reason)) => format!("the handler retries: {reason}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{Error, ErrorKind, messages::ByteWindow, status::Status};

    fn places(status: &Status) -> Vec<(String, String)> {
        blocked(&status.snapshot()).into_iter().map(|at| (at.place, at.why)).collect()
    }

    fn names(status: &Status) -> Vec<String> {
        places(status).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn nothing_is_marked_while_all_flows() {
        let status = Status::new(ByteWindow::new(100));
        let topic: Arc<str> = "shop.user".into();
        status.set_state(PipelineState::Running);
        status.topic_open(&topic);
        status.waits(&topic, 5);
        assert_eq!(places(&status), []);
        // Idle, a broker that restarts holds up nothing.
        status.delivered(&topic, 5, Duration::ZERO);
        status.kafka_trouble("broker down".into());
        assert_eq!(places(&status), []);
    }

    #[test]
    fn a_place_where_events_wait_is_listed_with_its_reason() {
        let status = Status::new(ByteWindow::new(100));
        let (user, order): (Arc<str>, Arc<str>) = ("shop.user".into(), "shop.order".into());
        status.set_state(PipelineState::Running);
        status.topic_open(&user);
        status.waits(&user, 5);
        status.kafka_trouble("broker down".into());
        assert_eq!(places(&status), [("kafka".into(), "broker down".into())]);
        status.pause(&user, true);
        status.waits(&order, 1);
        status.topic_failed(&order, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
        assert_eq!(names(&status), ["topic:shop.order", "topic:shop.user", "kafka"]);
        status.actor_waits("wal_reader", Some(BlockedBy::Window));
        status.actor_waits("checkpointer", Some(BlockedBy::Store));
        let mut names = names(&status);
        names.sort_unstable();
        assert_eq!(names[..3], ["checkpointer", "kafka", "topic:shop.order"]);
        assert_eq!(names.last().map(String::as_str), Some("window"));
    }

    #[test]
    fn a_start_that_waits_for_brokers_waits_at_kafka() {
        let status = Status::new(ByteWindow::new(100));
        let retrying = |error: &str| PipelineState::Retrying { error: error.into() };
        status.kafka_trouble("broker down".into());
        status.set_state(retrying("no answer"));
        assert_eq!(places(&status), [("kafka".into(), "no answer".into())]);
        status.set_generation(1, false);
        status.set_state(retrying("no route"));
        assert_eq!(names(&status), ["postgresql"]);
        status.set_state(PipelineState::StandingBy { error: "active for PID 7".into() });
        assert_eq!(names(&status), ["postgresql"]);
    }

    #[test]
    fn a_server_that_does_not_answer_is_marked() {
        let status = Status::new(ByteWindow::new(100));
        status.set_state(PipelineState::Running);
        status.actor_waits("wal_reader", Some(BlockedBy::Postgres));
        assert_eq!(names(&status), ["postgresql"]);
    }

    #[test]
    fn a_start_says_why_the_slot_is_not_created_yet() {
        let status = Status::new(ByteWindow::new(100));
        assert_eq!(places(&status), []);
        let why = "creating the slot waits for PID 7";
        status.actor_waits("wal_reader", Some(BlockedBy::Postgres));
        status.actor_complains("wal_reader", why.into());
        assert_eq!(places(&status), [("postgresql".into(), why.into())]);
    }
}
