//! A handler actor's answer for a batch that it could not handle: retry or park.

use std::{error::Error as StdError, time::Duration};

use crate::{Error, ErrorKind};

/// Any error of a handler: `?` converts every error, `.into()` a text.
pub type HandlerError = Box<dyn StdError + Send + Sync>;

/// Answer of a handler actor that could not handle a batch: retry or park it, and the reason. See
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
    action: FailureAction,
}

#[derive(Debug)]
enum FailureAction {
    Retry(Option<Duration>),
    Park,
}

impl BatchFailure {
    /// Retries the batch, without limit, after a pause that grows. This is for transient
    /// problems, such as an unavailable database.
    pub fn retry(reason: impl Into<HandlerError>) -> Self {
        BatchFailure { reason: reason.into(), action: FailureAction::Retry(None) }
    }

    /// Retries the batch, without limit, after this pause.
    pub fn retry_after(pause: Duration, reason: impl Into<HandlerError>) -> Self {
        BatchFailure { reason: reason.into(), action: FailureAction::Retry(Some(pause)) }
    }

    /// Gives the batch up: `dead_letter.policy` decides about all of its events. To give up single
    /// events, use [`AckToken::refuse`](crate::AckToken::refuse).
    pub fn park(reason: impl Into<HandlerError>) -> Self {
        BatchFailure { reason: reason.into(), action: FailureAction::Park }
    }

    /// The reason for a retry, and its pause if it has one of its own.
    ///
    /// # Errors
    /// The reason why each event of the batch is given up.
    pub(crate) fn into_error(self) -> Result<(Error, Option<Duration>), Error> {
        let error = |kind, what| Error::new(kind, what).caused_by(self.reason);
        match self.action {
            FailureAction::Retry(pause) => {
                let what = "a batch that its handler could not handle comes again";
                Ok((error(ErrorKind::HandlerUnavailable, what), pause))
            }
            FailureAction::Park => {
                Err(error(ErrorKind::HandlerFailed, "its handler gives its batch up"))
            }
        }
    }
}
