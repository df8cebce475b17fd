//! Where events wait: what the page marks in its picture of the pipeline.

use serde::Serialize;

use crate::status::{PipelineState, PipelineStatus};

/// In hundredths of the window: a batch more may not fit.
const FULL: usize = 95;

/// A place of the picture at which something waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Blocked {
    /// `postgresql`, `window`, `kafka`, or `topic:` and its name.
    pub place: String,
    /// For what, in a sentence.
    pub why: String,
}

/// All such places; none while everything flows.
pub(super) fn blocked(status: &PipelineStatus) -> Vec<Blocked> {
    let mut all = Vec::new();
    let mut add = |place: &str, why: String| all.push(Blocked { place: place.to_owned(), why });
    match &status.state {
        // Before the first generation, brokers are asked first.
        PipelineState::Retrying { error } if status.kafka_error.is_none() => {
            add("postgresql", error.clone());
        }
        PipelineState::Retrying { error } if status.generation == 0 => add("kafka", error.clone()),
        PipelineState::Retrying { error } => add("postgresql", error.clone()),
        PipelineState::StandingBy { error } => add("postgresql", error.clone()),
        _ => {}
    }
    if status.in_flight_bytes * 100 >= status.window_bytes * FULL {
        add(
            "window",
            "the window is full: nothing more is read until something is acknowledged".into(),
        );
    }
    let mut undelivered = 0;
    for (name, topic) in &status.topics {
        undelivered += topic.waiting;
        let why = match (&topic.last_error, &topic.retrying) {
            _ if topic.paused => "paused".to_owned(),
            _ if topic.waiting == 0 => continue,
            (Some(error), _) if !topic.open => format!("not open: {error}"),
            _ if !topic.open => "not open yet".into(),
            (_, Some(reason)) => format!("its handler tries again: {reason}"),
            _ => continue,
        };
        add(&format!("topic:{name}"), why);
    }
    if let Some(error) = status.kafka_error.as_ref().filter(|_| undelivered > 0) {
        add("kafka", error.clone());
    }
    all
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
    fn the_place_where_events_wait_is_named_with_its_reason() {
        let window = ByteWindow::new(100);
        let status = Status::new(window.clone());
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
        let _work = window.try_acquire(95);
        assert_eq!(names(&status)[0], "window");
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
}
