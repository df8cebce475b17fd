//! Decides whether to start again, and when: a plain struct, under the [`Supervisor`].
//!
//! [`Supervisor`]: super::Supervisor

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::{Error, ErrorKind, config::Config};

/// Pause before a standby starts again: most of the time, it waits inside of a start.
const STANDBY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Restarts {
    config: Arc<Config>,
    /// Generations in a row that delivered nothing.
    failures: u32,
    /// Time of the first start; none once the pipeline ran.
    starting_since: Option<Instant>,
}

impl Restarts {
    pub fn new(config: Arc<Config>) -> Self {
        Restarts { config, failures: 0, starting_since: Some(Instant::now()) }
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// True before the pipeline has run.
    pub fn is_first(&self) -> bool {
        self.starting_since.is_some()
    }

    pub fn runs(&mut self) {
        self.starting_since = None;
    }

    /// Notes that it has stood by: the time to start in begins now.
    pub fn stood_by(&mut self) {
        self.starting_since = self.starting_since.map(|_| Instant::now());
    }

    /// Notes the end of a generation of this age, and if it delivered something.
    pub fn ended(&mut self, delivered: bool, age: Duration) {
        if delivered || age > self.config.pipeline.restart_backoff_max {
            self.failures = 0;
        }
    }

    /// Time limit for one attempt to connect; before the first run, that for all of them.
    pub fn attempt_limit(&self) -> Duration {
        let limit = self.config.postgres.connect_timeout;
        let startup = self.config.pipeline.startup_timeout;
        if self.is_first() && !startup.is_zero() { limit.min(startup) } else { limit }
    }

    /// The pause after this error; none where another start can't help, or is too late.
    pub fn after(&mut self, error: &Error) -> Option<Duration> {
        // A slot in use is no fault: this instance stands by for the other one.
        let stands_by = error.kind() == ErrorKind::SlotInUse;
        let limit = self.config.pipeline.startup_timeout;
        let is_late = |since: Instant| !limit.is_zero() && since.elapsed() >= limit;
        if !error.is_transient() || !stands_by && self.starting_since.is_some_and(is_late) {
            return None;
        }
        if stands_by {
            self.stood_by();
            return Some(STANDBY_PAUSE);
        }
        let pause = self.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }

    /// The pause before try `failures + 1`: doubled each time, with jitter.
    pub fn pause(&self, failures: u32) -> Duration {
        let settings = &self.config.pipeline;
        ExponentialBuilder::default()
            .with_min_delay(settings.restart_backoff)
            .with_max_delay(settings.restart_backoff_max)
            .without_max_times()
            .with_jitter()
            .build()
            // 2^20 first pauses are beyond any longest pause.
            .nth(failures.min(20) as usize)
            .unwrap_or(settings.restart_backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    fn restarts(startup_timeout: Duration) -> Restarts {
        let mut config = Config::default();
        config.pipeline.restart_backoff = Duration::from_secs(1);
        config.pipeline.restart_backoff_max = LONGEST;
        config.pipeline.startup_timeout = startup_timeout;
        Restarts::new(Arc::new(config))
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "no")
    }

    #[test]
    fn pauses_grow_until_something_is_delivered() {
        let mut restarts = restarts(Duration::ZERO);
        let gone = error(ErrorKind::PostgresUnavailable);
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            let pause = restarts.after(&gone).expect("it passes");
            assert!(pause > last, "{pause:?} after {last:?}");
            last = pause;
        }
        restarts.ended(false, Duration::from_secs(1));
        assert!(restarts.after(&gone) > Some(last));
        restarts.ended(true, Duration::from_secs(1));
        assert!(restarts.after(&gone) < Some(last));
        assert_eq!(restarts.failures(), 1);
    }

    #[test]
    fn a_standby_looks_often_however_long_it_waits() {
        let mut restarts = restarts(Duration::from_nanos(1));
        for _ in 0..10 {
            let pause = restarts.after(&error(ErrorKind::SlotInUse));
            assert_eq!(pause, Some(STANDBY_PAUSE));
        }
    }

    #[test]
    fn a_failure_after_standing_by_is_the_first_one() {
        let mut restarts = restarts(Duration::ZERO);
        for _ in 0..10 {
            restarts.after(&error(ErrorKind::SlotInUse));
        }
        let pause = restarts.after(&error(ErrorKind::TransactionAborted)).expect("it passes");
        assert!(pause <= Duration::from_secs(2), "{pause:?}");
    }

    #[test]
    fn to_stand_by_takes_no_time_from_the_start() {
        let mut restarts = restarts(Duration::from_millis(300));
        std::thread::sleep(Duration::from_millis(310));
        restarts.stood_by();
        assert!(restarts.after(&error(ErrorKind::KafkaUnavailable)).is_some());
        std::thread::sleep(Duration::from_millis(310));
        assert_eq!(restarts.after(&error(ErrorKind::KafkaUnavailable)), None);
        restarts.runs();
        restarts.stood_by();
        assert!(!restarts.is_first());
    }

    #[test]
    fn what_does_not_pass_or_not_in_time_is_not_tried_again() {
        let mut restarts = restarts(Duration::from_nanos(1));
        assert_eq!(restarts.after(&error(ErrorKind::PositionLost)), None);
        let gone = error(ErrorKind::PostgresUnavailable);
        assert_eq!(restarts.after(&gone), None, "the time to start in is over");
        restarts.runs();
        assert!(restarts.after(&gone).is_some(), "it ran");
    }
}
