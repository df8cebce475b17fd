//! Is it getting anywhere? A judgement over time, from one status after another.
//!
//! Alive is not enough: a relay that is connected and moves nothing lets WAL pile
//! up until the disk is full. So health is the age of the last good moment: one
//! in which something was delivered or saved, or in which there was nothing to do.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    Lsn,
    status::{BlockedBy, PipelineState, PipelineStatus, PublicationProblem},
};

/// Whether to leave the pipeline alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// Why not, in a sentence.
    Bad(String),
}

/// What has to change from one look to the next.
#[derive(PartialEq, Eq)]
struct Marks {
    events: u64,
    saved: Lsn,
}

/// Judges one status after another, by three clocks: of the pipeline as a whole, of the saved
/// position, and of each topic. One that stands still is bad although the others move.
pub(super) struct Progress {
    stuck_after: Duration,
    /// A position that moves by itself is saved only so often.
    idle_interval: Duration,
    generation: Option<u64>,
    whole: Clock<Marks>,
    position: Clock<Lsn>,
    topics: BTreeMap<String, Clock<u64>>,
}

/// Measures how long something has stood still that should move.
struct Clock<T> {
    seen: Option<T>,
    good: Option<Instant>,
}

impl<T> Default for Clock<T> {
    fn default() -> Self {
        Clock { seen: None, good: None }
    }
}

impl<T: PartialEq> Clock<T> {
    /// The time since it last changed or was at rest; the first look counts as a change.
    fn still(&mut self, seen: T, at_rest: bool, now: Instant) -> Duration {
        let seen = Some(seen);
        if at_rest || self.seen != seen {
            self.good = Some(now);
        }
        self.seen = seen;
        now.saturating_duration_since(self.good.unwrap_or(now))
    }
}

impl Progress {
    pub fn new(stuck_after: Duration, idle_interval: Duration) -> Self {
        Progress {
            stuck_after,
            idle_interval,
            generation: None,
            whole: Clock::default(),
            position: Clock::default(),
            topics: BTreeMap::new(),
        }
    }

    /// Takes the next status in; the first one is a good moment.
    pub fn observe(&mut self, status: &PipelineStatus, now: Instant) -> Health {
        // A chain that fails as soon as it has work is idle for a moment each time.
        let settled = self.generation.replace(status.generation) == Some(status.generation);
        let running = status.state == PipelineState::Running;
        // The instance that has the slot answers for the progress.
        let standing_by = matches!(status.state, PipelineState::StandingBy { .. });
        let done =
            running && status.in_flight_bytes == 0 && status.received_lsn <= status.saved_lsn;
        let marks = Marks { events: status.events, saved: status.saved_lsn };
        let whole = self.whole.still(marks, standing_by || settled && done, now);
        let saved = status.delivered_lsn <= status.saved_lsn;
        let position = self.position.still(status.saved_lsn, saved || !running, now);
        let topics = self.topics(status, standing_by, now);
        if status.state == PipelineState::Stopped {
            return Health::Bad(stopped(status));
        }
        let unsaved = self.stuck_after + self.idle_interval;
        if position > unsaved {
            return Health::Bad(not_saved(status, position));
        }
        let limit = if running && status.in_flight_bytes == 0 { unsaved } else { self.stuck_after };
        if whole > limit {
            return Health::Bad(reason(status, whole));
        }
        topics.or_else(|| unpublished(status)).map_or(Health::Good, Health::Bad)
    }

    /// Names the topics that have events and have finished none for too long.
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
            let still = clock.still(topic.finished, at_rest, now);
            if still > self.stuck_after {
                stuck.push(topic.undelivered(name));
                longest = longest.max(still);
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

/// Names a table that is not published as it is configured, though other events may flow.
fn unpublished(status: &PipelineStatus) -> Option<String> {
    let mut problems = status.publication_problems.iter();
    let PublicationProblem { problem, remedy, .. } = problems.find(|problem| problem.is_error)?;
    Some(format!("{problem} ({remedy})"))
}

/// Says what a start is waiting for.
pub(super) fn start_waits_for(status: &PipelineStatus) -> &str {
    let reader = status.actors.get("wal_reader").filter(|actor| actor.blocked_by.is_some());
    let known = reader.and_then(|actor| actor.last_error.as_deref());
    known.unwrap_or("still connecting, or checking positions")
}

fn reason(status: &PipelineStatus, since: Duration) -> String {
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
            assert_eq!(scene.at(0), Health::Good);
            scene
        }

        fn in_flight(&self) -> WindowPermit {
            self.window.try_acquire(100).expect("the window is empty")
        }

        fn at(&mut self, second: u64) -> Health {
            let now = self.start + Duration::from_secs(second);
            self.progress.observe(&self.status.snapshot(), now)
        }

        /// Why it is bad at that second.
        fn bad_at(&mut self, second: u64) -> String {
            match self.at(second) {
                Health::Bad(reason) => reason,
                Health::Good => panic!("good at second {second}"),
            }
        }
    }

    #[test]
    fn who_stands_by_is_well() {
        let mut scene = Scene::new(PipelineState::StandingBy { error: "active for PID 7".into() });
        assert_eq!(scene.at(10 * LIMIT.as_secs()), Health::Good);
    }

    #[test]
    fn connected_and_idle_is_good_for_ever() {
        let mut scene = Scene::new(PipelineState::Running);
        assert_eq!(scene.at(1_000), Health::Good);
        // The work starts now, not when it was last at rest.
        let _work = scene.in_flight();
        assert_eq!(scene.at(1_060), Health::Good);
        scene.bad_at(1_061);
    }

    #[test]
    fn work_that_moves_is_good_and_work_that_does_not_is_named() {
        let mut scene = Scene::new(PipelineState::Running);
        let topic: Arc<str> = "shop.user".into();
        let _work = scene.in_flight();
        scene.status.waits(&topic, 7);
        assert_eq!(scene.at(60), Health::Good);
        scene.status.delivered(&topic, 2, LIMIT);
        assert_eq!(scene.at(120), Health::Good);
        scene.status.saved(Lsn::new(1));
        scene.status.delivered(&topic, 1, LIMIT);
        assert_eq!(scene.at(180), Health::Good);
        assert_eq!(scene.at(240), Health::Good);
        scene.status.topic_failed(&topic, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
        scene.status.kafka_trouble("broker down".into());
        assert_eq!(
            scene.bad_at(241),
            "nothing has moved for 61 s, with 100 of 1000 bytes in flight: \
             topic shop.user (not open: no leader), undelivered events: 4; Kafka: broker down"
        );
        scene.status.delivered(&topic, 4, LIMIT);
        assert_eq!(scene.at(242), Health::Good);
    }

    #[test]
    fn a_retry_that_takes_too_long_is_bad_and_says_its_error() {
        let mut scene = Scene::new(PipelineState::Running);
        assert_eq!(scene.at(10), Health::Good);
        scene.status.set_state(PipelineState::Retrying { error: "no route".into() });
        assert_eq!(scene.at(70), Health::Good);
        assert!(scene.bad_at(71).ends_with("because: no route"));
        scene.status.set_state(PipelineState::Running);
        assert_eq!(scene.at(72), Health::Good);
    }

    #[test]
    fn a_chain_that_starts_again_and_again_is_bad() {
        let mut scene = Scene::new(PipelineState::Running);
        for second in 1..=60 {
            scene.status.set_generation(second, false);
            assert_eq!(scene.at(second), Health::Good);
        }
        scene.status.set_generation(61, false);
        scene.bad_at(61 + IDLE.as_secs());
    }

    #[test]
    fn a_start_that_takes_too_long_is_bad() {
        let mut scene = Scene::new(PipelineState::Starting);
        assert_eq!(scene.at(60), Health::Good);
        let why = ": still connecting, or checking positions";
        assert_eq!(scene.bad_at(61), format!("nothing has moved for 61 s{why}"));
        let waits = "creating the slot waits for PID 7";
        scene.status.actor_waits("wal_reader", Some(BlockedBy::Postgres));
        scene.status.actor_complains("wal_reader", waits.into());
        assert_eq!(scene.bad_at(62), format!("nothing has moved for 62 s: {waits}"));
    }

    #[test]
    fn a_position_that_is_never_saved_is_bad() {
        let mut scene = Scene::new(PipelineState::Running);
        scene.status.received(Lsn::new(9));
        assert_eq!(scene.at(70), Health::Good);
        assert_eq!(scene.bad_at(71), "nothing has moved for 71 s: PostgreSQL is silent");
        scene.status.saved(Lsn::new(9));
        assert_eq!(scene.at(72), Health::Good);
    }

    #[test]
    fn a_position_that_is_not_saved_is_bad_though_events_flow() {
        let mut scene = Scene::new(PipelineState::Running);
        for second in 1..=70 {
            scene.status.safe(Lsn::new(second));
            scene.status.delivered(&"shop.user".into(), 1, LIMIT);
            assert_eq!(scene.at(second), Health::Good);
        }
        let silent =
            "the position has not been saved for 71 s: the checkpoint store does not answer";
        assert_eq!(scene.bad_at(71), silent);
        let error = Error::new(ErrorKind::CheckpointUnavailable, "no room");
        scene.status.not_saved("checkpointer", &error);
        assert!(scene.bad_at(72).ends_with(": no room"));
        scene.status.saved(Lsn::new(70));
        assert_eq!(scene.at(73), Health::Good);
    }

    #[test]
    fn a_topic_that_stands_still_is_bad_though_the_others_move() {
        let mut scene = Scene::new(PipelineState::Running);
        let (user, order): (Arc<str>, Arc<str>) = ("shop.user".into(), "shop.order".into());
        scene.status.waits(&order, 3);
        for second in 0..=60 {
            scene.status.delivered(&user, 1, LIMIT);
            assert_eq!(scene.at(second), Health::Good);
        }
        scene.status.topic_failed(&order, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
        scene.status.delivered(&user, 1, LIMIT);
        let why = "nothing has been delivered for 61 s: topic shop.order (not open: no leader), \
                   undelivered events: 3";
        assert_eq!(scene.bad_at(61), why);
        // One that is parked has left it as well.
        scene.status.handed_on(&order, 1, 0, LIMIT);
        scene.status.delivered(&user, 1, LIMIT);
        assert_eq!(scene.at(62), Health::Good);
    }

    #[test]
    fn a_table_that_is_not_published_is_bad_while_all_else_moves() {
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
        assert_eq!(scene.at(1), Health::Good, "worth a look, no more");
        scene.status.publication_problems(vec![problem(false), problem(true)]);
        assert_eq!(scene.bad_at(2), "publication p does not have outbox table o (add it)");
        scene.status.publication_problems(Vec::new());
        assert_eq!(scene.at(3), Health::Good);
    }

    #[test]
    fn stopped_is_bad_at_once() {
        let mut scene = Scene::new(PipelineState::Draining);
        scene.status.set_state(PipelineState::Stopped);
        assert_eq!(scene.bad_at(1), "the pipeline has stopped");
        scene.status.stops_with(&Error::new(ErrorKind::PositionLost, "the slot is gone"));
        assert_eq!(scene.bad_at(2), "the pipeline has stopped: the slot is gone");
    }
}
