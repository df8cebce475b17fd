//! A batch that an actor could not handle.

use std::time::Duration;

use super::HandlerError;
use crate::{Error, ErrorKind};

/// What becomes of a batch that a handler actor could not handle, and why; see
/// [`AckToken::fail`](crate::AckToken::fail).
///
/// ```
/// use std::time::Duration;
/// use factlib::handlers::BatchFailure;
///
/// let away = BatchFailure::retry(std::io::Error::other("connection refused"));
/// let throttled = BatchFailure::retry_after(Duration::from_secs(30), "too many requests");
/// let hopeless = BatchFailure::park("the format is not known");
/// ```
#[derive(Debug)]
#[must_use]
pub struct BatchFailure {
    reason: HandlerError,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Retry(Option<Duration>),
    Park,
}

impl BatchFailure {
    /// The batch comes again, without limit, after a pause that grows. This is for what may
    /// pass, such as a database that is away.
    pub fn retry(reason: impl Into<HandlerError>) -> Self {
        BatchFailure { reason: reason.into(), then: Then::Retry(None) }
    }

    /// The same, after this pause.
    pub fn retry_after(pause: Duration, reason: impl Into<HandlerError>) -> Self {
        BatchFailure { reason: reason.into(), then: Then::Retry(Some(pause)) }
    }

    /// None of its events can ever be handled: all go to the dead letters, as
    /// `dead_letter.policy` says. [`AckToken::refuse`](crate::AckToken::refuse) names single ones.
    pub fn park(reason: impl Into<HandlerError>) -> Self {
        BatchFailure { reason: reason.into(), then: Then::Park }
    }

    /// Why it comes again, and after which pause if not one that grows.
    ///
    /// # Errors
    /// Why each of its events is given up.
    pub(crate) fn into_error(self) -> Result<(Error, Option<Duration>), Error> {
        let error = |kind, what| Error::new(kind, what).caused_by(self.reason);
        match self.then {
            Then::Retry(pause) => {
                let what = "a batch that its handler could not handle comes again";
                Ok((error(ErrorKind::HandlerUnavailable, what), pause))
            }
            Then::Park => Err(error(ErrorKind::HandlerFailed, "its handler gives its batch up")),
        }
    }
}
