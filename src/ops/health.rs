//! Is it getting anywhere? A judgement over time, from one status after another.
//!
//! Alive is not enough: a relay that is connected and moves nothing lets WAL pile
//! up until the disk is full. So health is the age of the last good moment: one
//! in which something was delivered or saved, or in which there was nothing to do.

use std::time::{Duration, Instant};

use crate::{
    Lsn,
    status::{PipelineState, PipelineStatus},
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

/// The last good moment, and what was seen last.
pub(super) struct Progress {
    stuck_after: Duration,
    /// A position that moves by itself is saved only so often.
    idle_interval: Duration,
    good: Option<Instant>,
    marks: Option<Marks>,
    generation: Option<u64>,
}

impl Progress {
    pub fn new(stuck_after: Duration, idle_interval: Duration) -> Self {
        Progress { stuck_after, idle_interval, good: None, marks: None, generation: None }
    }

    /// Takes the next status in; the first one is a good moment.
    pub fn observe(&mut self, status: &PipelineStatus, now: Instant) -> Health {
        let marks = Some(Marks { events: status.events, saved: status.saved_lsn });
        let moved = self.marks != marks;
        // A chain that fails as soon as it has work is idle for a moment each time.
        let settled = self.generation == Some(status.generation);
        // The instance that has the slot answers for the progress.
        let standing_by = matches!(status.state, PipelineState::StandingBy { .. });
        let at_rest = status.state == PipelineState::Running
            && settled
            && status.in_flight_bytes == 0
            && status.received_lsn <= status.saved_lsn;
        self.marks = marks;
        self.generation = Some(status.generation);
        if moved || at_rest || standing_by {
            self.good = Some(now);
        }
        if status.state == PipelineState::Stopped {
            return Health::Bad("the pipeline has stopped".into());
        }
        let since = now.saturating_duration_since(*self.good.get_or_insert(now));
        let unsaved = status.state == PipelineState::Running && status.in_flight_bytes == 0;
        let limit = if unsaved { self.stuck_after + self.idle_interval } else { self.stuck_after };
        if since > limit { Health::Bad(reason(status, since)) } else { Health::Good }
    }
}

fn reason(status: &PipelineStatus, since: Duration) -> String {
    let text = format!("nothing has moved for {} s", since.as_secs());
    match &status.state {
        PipelineState::Retrying { error } => return text + ": retrying, because: " + error,
        PipelineState::Starting => return text + ": still connecting, or checking positions",
        _ if status.in_flight_bytes == 0 => {
            return text + ": the position can't be saved, or PostgreSQL is silent";
        }
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
        assert_eq!(scene.at(180), Health::Good);
        assert_eq!(scene.at(240), Health::Good);
        scene.status.topic_failed(&topic, &Error::new(ErrorKind::KafkaUnavailable, "no leader"));
        scene.status.kafka_trouble("broker down".into());
        assert_eq!(
            scene.bad_at(241),
            "nothing has moved for 61 s, with 100 of 1000 bytes in flight: \
             topic shop.user (not open: no leader), undelivered events: 5; Kafka: broker down"
        );
        scene.status.delivered(&topic, 5, LIMIT);
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
    }

    #[test]
    fn a_position_that_is_never_saved_is_bad() {
        let mut scene = Scene::new(PipelineState::Running);
        scene.status.received(Lsn::new(9));
        assert_eq!(scene.at(70), Health::Good);
        let why = ": the position can't be saved, or PostgreSQL is silent";
        assert_eq!(scene.bad_at(71), format!("nothing has moved for 71 s{why}"));
        scene.status.saved(Lsn::new(9));
        assert_eq!(scene.at(72), Health::Good);
    }

    #[test]
    fn stopped_is_bad_at_once() {
        let mut scene = Scene::new(PipelineState::Draining);
        scene.status.set_state(PipelineState::Stopped);
        scene.bad_at(1);
    }
}
