//! Judges health by progress: one status after another in, healthy or a reason out.
//!
//! Being alive is not enough: a relay that is connected and moves nothing lets WAL pile up until the
//! disk is full. So health depends on the time since something was last delivered or saved, or since
//! there was last nothing to do.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    Lsn,
    status::{BlockedBy, PipelineState, PipelineStatus, PublicationProblem},
};

/// The answer of `/healthz`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    Healthy,
    /// The reason, in a sentence.
    Unhealthy(String),
}

/// The pipeline's progress: it stands still while this stays the same.
#[derive(PartialEq, Eq)]
struct Marks {
    events: u64,
    saved: Lsn,
}

/// Watches three kinds of progress: of the whole pipeline, of the saved position, and of each topic.
/// Each alone makes the relay unhealthy if it stands still.
pub(super) struct Progress {
    stuck_after: Duration,
    /// Interval at which an idle pipeline saves its position.
    idle_interval: Duration,
    generation: Option<u64>,
    pipeline: Clock<Marks>,
    position: Clock<Lsn>,
    topics: BTreeMap<String, Clock<u64>>,
}

/// Measures how long a value has stood still that should move.
struct Clock<T> {
    last_value: Option<T>,
    moved_at: Option<Instant>,
}

impl<T> Default for Clock<T> {
    fn default() -> Self {
        Clock { last_value: None, moved_at: None }
    }
}

impl<T: PartialEq> Clock<T> {
    /// Returns the time since the value last changed or was at rest. The first call counts as a change.
    fn standstill(&mut self, value: T, at_rest: bool, now: Instant) -> Duration {
        let value = Some(value);
        if at_rest || self.last_value != value {
            self.moved_at = Some(now);
        }
        self.last_value = value;
        now.saturating_duration_since(self.moved_at.unwrap_or(now))
    }
}

impl Progress {
    pub fn new(stuck_after: Duration, idle_interval: Duration) -> Self {
        Progress {
            stuck_after,
            idle_interval,
            generation: None,
            pipeline: Clock::default(),
            position: Clock::default(),
            topics: BTreeMap::new(),
        }
    }

    /// Takes the next status in and judges it. The first one counts as progress.
    pub fn observe(&mut self, status: &PipelineStatus, now: Instant) -> Health {
        // A chain that fails whenever it gets work is idle for a moment each time; don't count that.
        let settled = self.generation.replace(status.generation) == Some(status.generation);
        let running = status.state == PipelineState::Running;
        // Progress is up to the instance that reads the slot.
        let standing_by = matches!(status.state, PipelineState::StandingBy { .. });
        let done = running
            && !server_is_silent(status)
            && status.in_flight_bytes == 0
            && status.received_lsn <= status.saved_lsn;
        let marks = Marks { events: status.events, saved: status.saved_lsn };
        let pipeline = self.pipeline.standstill(marks, standing_by || settled && done, now);
        let saved = status.delivered_lsn <= status.saved_lsn;
        let position = self.position.standstill(status.saved_lsn, saved || !running, now);
        let topics = self.topics(status, standing_by, now);
        if status.state == PipelineState::Stopped {
            return Health::Unhealthy(stopped(status));
        }
        let unsaved = self.stuck_after + self.idle_interval;
        if position > unsaved {
            return Health::Unhealthy(not_saved(status, position));
        }
        let limit = if running && status.in_flight_bytes == 0 { unsaved } else { self.stuck_after };
        if pipeline > limit {
            return Health::Unhealthy(standstill_reason(status, pipeline));
        }
        topics.or_else(|| unpublished(status)).map_or(Health::Healthy, Health::Unhealthy)
    }

    /// Names the topics that have events waiting and have finished none for too long.
    fn topics(
        &mut self,
        status: &PipelineStatus,
        standing_by: bool,
        now: Instant,
    ) -> Option<String> {
        let (mut stuck, mut longest) = (Vec::new(), Duration::ZERO);
        for (name, topic) in &status.topics {
            let at_rest = standing_by || topic.waiting == 0;
            let clock = match self.topics.get_mut(name) {
                Some(clock) => clock,
                None => self.topics.entry(name.clone()).or_default(),
            };
            let standstill = clock.standstill(topic.finished, at_rest, now);
            if standstill > self.stuck_after {
                stuck.push(topic.undelivered(name));
                longest = longest.max(standstill);
            }
        }
        if stuck.is_empty() {
            return None;
        }
        stuck.extend(status.kafka_error.as_ref().map(|error| format!("Kafka: {error}")));
        let stuck = stuck.join("; ");
        Some(format!("nothing has been delivered for {} s: {stuck}", longest.as_secs()))
    }
}

/// Says that the pipeline has stopped, and why.
pub(super) fn stopped(status: &PipelineStatus) -> String {
    let error = status.stopped_by.as_ref().map(|error| format!(": {error}"));
    format!("the pipeline has stopped{}", error.unwrap_or_default())
}

fn not_saved(status: &PipelineStatus, since: Duration) -> String {
    let checkpointer = status.actors.get("checkpointer");
    let error = checkpointer.filter(|actor| actor.blocked_by == Some(BlockedBy::Store));
    let error = error.and_then(|actor| actor.last_error.as_deref());
    let why = error.unwrap_or("the checkpoint store does not answer");
    format!("the position has not been saved for {} s: {why}", since.as_secs())
}

/// Names a table that is not published as configured; events of others may still flow.
fn unpublished(status: &PipelineStatus) -> Option<String> {
    let mut problems = status.publication_problems.iter();
    let PublicationProblem { problem, remedy, .. } = problems.find(|problem| problem.is_error)?;
    Some(format!("{problem} ({remedy})"))
}

/// True if the server was asked for a reply and has not replied: nobody knows if there is work.
pub(super) fn server_is_silent(status: &PipelineStatus) -> bool {
    let reader = status.actors.get("wal_reader");
    status.state == PipelineState::Running
        && reader.is_some_and(|reader| reader.blocked_by == Some(BlockedBy::Postgres))
}

/// Says what the start is waiting for.
pub(super) fn start_waits_for(status: &PipelineStatus) -> &str {
    start_wait(status).map_or("still connecting, or checking positions", |(_, why)| why)
}

/// The cause of the reader's wait, and its reason; none if it does not wait or the reason is unknown.
pub(super) fn start_wait(status: &PipelineStatus) -> Option<(BlockedBy, &str)> {
    let reader = status.actors.get("wal_reader")?;
    Some((reader.blocked_by?, reader.last_error.as_deref()?))
}

fn standstill_reason(status: &PipelineStatus, since: Duration) -> String {
    let text = format!("nothing has moved for {} s", since.as_secs());
    match &status.state {
        PipelineState::Retrying { error } => return text + ": retrying, because: " + error,
        PipelineState::Starting => return text + ": " + start_waits_for(status),
        _ if status.in_flight_bytes == 0 => return text + ": PostgreSQL is silent",
        _ => {}
    }
    let (bytes, window) = (status.in_flight_bytes, status.window_bytes);
    let undelivered = status.undelivered();
    let separator = if undelivered.is_empty() { "" } else { ": " };
    format!("{text}, with {bytes} of {window} bytes in flight{separator}{undelivered}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        Error, ErrorKind,
        messages::{ByteWindow, WindowPermit},
        status::Status,
    };

    const LIMIT: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(10);

    /// A pipeline and a clock.
    struct Scene {
        status: Status,
        window: ByteWindow,
        progress: Progress,
        start: Instant,
    }

    impl Scene {
        fn new(state: PipelineState) -> Self {
            let window = ByteWindow::new(1_000);
            let status = Status::new(window.clone());
            status.set_state(state);
            let progress = Progress::new(LIMIT, IDLE);
            let mut scene = Scene { status, window, progress, start: Instant::now() };
            assert_eq!(scene.at(0), Health::Healthy);
            scene
        }

        fn in_flight(&self) -> WindowPermit {
            self.window.try_acquire(100).expect("the window is empty")
        }

        fn at(&mut self, second: u64) -> Health {
            let now = self.start + Duration::from_secs(second);
            self.progress.observe(&self.status.snapshot(), now)
        }

        /// The reason why it is unhealthy at that second.
        fn reason_at(&mut self, second: u64) -> String {
            match self.at(second) {
                Health::Unhealthy(reason) => reason,
                Health::Healthy => panic!("healthy at second {second}"),
            }
        }
    }

    #[test]
    fn a_standby_is_healthy() {
        let mut scene = Scene::new(PipelineState::StandingBy { error: "active for PID 7".into() });
        assert_eq!(scene.at(10 * LIMIT.as_secs()), Health::Healthy);
    }

    #[test]
    fn an_idle_pipeline_stays_healthy() {
        let mut scene = Scene::new(PipelineState::Running);
        assert_eq!(scene.at(1_000), Health::Healthy);
        // The work starts now, not when it was last at rest.
        let _work = scene.in_flight();
        assert_eq!(scene.at(1_060), Health::Healthy);
        scene.reason_at(1_061);
    }

    #[test]
    fn a_pipeline_that_stands_still_is_unhealthy_and_names_its_topics() {
        let mut scene = Scene::new(PipelineState::Running);
        let topic: Arc<str> = "shop.user".into();
        let _work = scene.in_flight();
        scene.status.waits(&topic, 7);
        assert_eq!(scene.at(60), Health::Healthy);
        scene.status.delivered(&topic, 2, LIMIT);
        assert_eq!(scene.at(120), Health::Healthy);
        scene.status.saved(Lsn::new(1));
        scene.status.delivered(&topic, 1, LIMIT);
        assert_eq!(scene.at(180), Health::Healthy);
        assert_eq!(scene.at(240), Health::Healthy);
        scene.status.topic_failed(&topic, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
        scene.status.kafka_trouble("broker down".into());
        assert_eq!(
            scene.reason_at(241),
            "nothing has moved for 61 s, with 100 of 1000 bytes in flight: \
             topic shop.user (not open: no leader), undelivered events: 4; Kafka: broker down"
        );
        scene.status.delivered(&topic, 4, LIMIT);
        assert_eq!(scene.at(242), Health::Healthy);
    }

    #[test]
    fn a_long_retry_is_unhealthy_and_names_its_error() {
        let mut scene = Scene::new(PipelineState::Running);
        assert_eq!(scene.at(10), Health::Healthy);
        scene.status.set_state(PipelineState::Retrying { error: "no route".into() });
        assert_eq!(scene.at(70), Health::Healthy);
        assert!(scene.reason_at(71).ends_with("because: no route"));
        scene.status.set_state(PipelineState::Running);
        assert_eq!(scene.at(72), Health::Healthy);
    }

    #[test]
    fn a_chain_that_keeps_restarting_is_unhealthy() {
        let mut scene = Scene::new(PipelineState::Running);
        for second in 1..=60 {
            scene.status.set_generation(second, false);
            assert_eq!(scene.at(second), Health::Healthy);
        }
        scene.status.set_generation(61, false);
        scene.reason_at(61 + IDLE.as_secs());
    }

    #[test]
    fn a_long_start_is_unhealthy() {
        let mut scene = Scene::new(PipelineState::Starting);
        assert_eq!(scene.at(60), Health::Healthy);
        let why = ": still connecting, or checking positions";
        assert_eq!(scene.reason_at(61), format!("nothing has moved for 61 s{why}"));
        let waits = "creating the slot waits for PID 7";
        scene.status.actor_waits("wal_reader", Some(BlockedBy::Postgres));
        scene.status.actor_complains("wal_reader", waits.into());
        assert_eq!(scene.reason_at(62), format!("nothing has moved for 62 s: {waits}"));
    }

    #[test]
    fn a_received_position_that_is_never_saved_is_unhealthy() {
        let mut scene = Scene::new(PipelineState::Running);
        scene.status.received(Lsn::new(9));
        assert_eq!(scene.at(70), Health::Healthy);
        assert_eq!(scene.reason_at(71), "nothing has moved for 71 s: PostgreSQL is silent");
        scene.status.saved(Lsn::new(9));
        assert_eq!(scene.at(72), Health::Healthy);
    }

    #[test]
    fn a_server_that_does_not_answer_is_no_rest() {
        let mut scene = Scene::new(PipelineState::Running);
        assert_eq!(scene.at(1_000), Health::Healthy);
        scene.status.actor_waits("wal_reader", Some(BlockedBy::Postgres));
        assert_eq!(scene.at(1_010), Health::Healthy);
        // Its connection is given up: that does not begin anew.
        scene.status.set_state(PipelineState::Retrying { error: "held by PID 7".into() });
        assert_eq!(scene.at(1_060), Health::Healthy);
        let reason = "nothing has moved for 61 s: retrying, because: held by PID 7";
        assert_eq!(scene.reason_at(1_061), reason);
        scene.status.set_state(PipelineState::Running);
        scene.status.actor_waits("wal_reader", None);
        assert_eq!(scene.at(1_062), Health::Healthy);
    }

    #[test]
    fn an_unsaved_position_is_unhealthy_although_events_flow() {
        let mut scene = Scene::new(PipelineState::Running);
        for second in 1..=70 {
            scene.status.safe(Lsn::new(second));
            scene.status.delivered(&"shop.user".into(), 1, LIMIT);
            assert_eq!(scene.at(second), Health::Healthy);
        }
        let silent =
            "the position has not been saved for 71 s: the checkpoint store does not answer";
        assert_eq!(scene.reason_at(71), silent);
        let error = Error::new(ErrorKind::CheckpointUnavailable, "no room");
        scene.status.save_failed("checkpointer", &error);
        assert!(scene.reason_at(72).ends_with(": no room"));
        scene.status.saved(Lsn::new(70));
        assert_eq!(scene.at(73), Health::Healthy);
    }

    #[test]
    fn a_topic_that_stands_still_is_unhealthy_although_others_move() {
        let mut scene = Scene::new(PipelineState::Running);
        let (user, order): (Arc<str>, Arc<str>) = ("shop.user".into(), "shop.order".into());
        scene.status.waits(&order, 3);
        for second in 0..=60 {
            scene.status.delivered(&user, 1, LIMIT);
            assert_eq!(scene.at(second), Health::Healthy);
        }
        scene.status.topic_failed(&order, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
        scene.status.delivered(&user, 1, LIMIT);
        let why = "nothing has been delivered for 61 s: topic shop.order (not open: no leader), \
                   undelivered events: 3";
        assert_eq!(scene.reason_at(61), why);
        // One that is parked has left it as well.
        scene.status.part_finished(&order, 1, 0, LIMIT);
        scene.status.delivered(&user, 1, LIMIT);
        assert_eq!(scene.at(62), Health::Healthy);
    }

    #[test]
    fn an_unpublished_table_is_unhealthy_although_all_else_moves() {
        let mut scene = Scene::new(PipelineState::Running);
        let problem = |is_error| PublicationProblem {
            table: Some("o".into()),
            is_error,
            problem: "publication p does not have outbox table o".into(),
            remedy: "add it".into(),
            since_lsn: None,
            since: None,
        };
        scene.status.publication_problems(vec![problem(false)]);
        assert_eq!(scene.at(1), Health::Healthy, "worth a look, no more");
        scene.status.publication_problems(vec![problem(false), problem(true)]);
        assert_eq!(scene.reason_at(2), "publication p does not have outbox table o (add it)");
        scene.status.publication_problems(Vec::new());
        assert_eq!(scene.at(3), Health::Healthy);
    }

    #[test]
    fn a_stopped_pipeline_is_unhealthy_at_once() {
        let mut scene = Scene::new(PipelineState::Draining);
        scene.status.set_state(PipelineState::Stopped);
        assert_eq!(scene.reason_at(1), "the pipeline has stopped");
        scene.status.stops_with(&Error::new(ErrorKind::PositionLost, "the slot is gone"));
        assert_eq!(scene.reason_at(2), "the pipeline has stopped: the slot is gone");
    }
}
