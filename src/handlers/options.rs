//! Options of a handler: concurrency, timeout, tries and backoff.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::{Error, ErrorKind, Result};

/// Concurrency, timeout and retries of a handler.
///
/// ```
/// use std::time::Duration;
/// use factlib::handlers::HandlerOptions;
///
/// let options = HandlerOptions::default().concurrency(8).timeout(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct HandlerOptions {
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) tries: u32,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
}

impl Default for HandlerOptions {
    fn default() -> Self {
        HandlerOptions {
            concurrency: 1,
            timeout: Duration::from_secs(30),
            tries: 5,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

impl HandlerOptions {
    /// Maximum number of events handled at the same time, each of another aggregate; 1 if not set.
    pub fn concurrency(mut self, events: usize) -> Self {
        self.concurrency = events;
        self
    }

    /// Time limit for one try; 30 s if not set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Number of failed tries after which an event goes to the dead letters; 5 if not set.
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// First and longest pause after a failed try. Pauses double, with jitter. 100 ms and 10 s if
    /// not set.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.backoff, self.backoff_max) = (first, longest);
        self
    }

    /// Pauses between tries.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.backoff)
            .with_max_delay(self.backoff_max)
            .without_max_times()
            .with_jitter()
            .build()
    }

    pub(crate) fn check(&self, aggregate_type: &str) -> Result<()> {
        let problem = match self {
            HandlerOptions { concurrency: 0, .. } => "concurrency must be at least 1",
            HandlerOptions { tries: 0, .. } => "tries must be at least 1",
            options if options.timeout.is_zero() => "timeout must be above zero",
            options if options.backoff.is_zero() => "backoff must be above zero",
            options if options.backoff_max < options.backoff => {
                "the longest backoff must not be below the first"
            }
            _ => return Ok(()),
        };
        let what = format!("the handler of {aggregate_type:?} has invalid options: {problem}");
        Err(Error::new(ErrorKind::Config, what))
    }
}
