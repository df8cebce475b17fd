//! Remembers topics that can't be opened, with exactly-once. A transaction spans all topics, so
//! waiting for one topic holds up the others. The relay waits for it only as long as the
//! transaction can wait; after that, `dead_letter.policy` decides about its events.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::Error;

/// Unavailable topics by name; `kafka.topics.max` bounds their number.
pub(super) struct UnavailableTopics {
    /// Maximum time to wait for a topic.
    patience: Duration,
    /// Time for which a topic is left out after it failed a transaction, because the next try may
    /// fail another one.
    denied_for: Duration,
    known: Mutex<HashMap<Arc<str>, Unavailable>>,
}

struct Unavailable {
    since: Instant,
    /// The error of the transaction that failed because of it, and the time until which it is left
    /// out.
    denied: Option<(Error, Instant)>,
}

impl UnavailableTopics {
    pub fn new(patience: Duration, denied_for: Duration) -> Self {
        UnavailableTopics { patience, denied_for, known: Mutex::default() }
    }

    /// Notes that a transaction failed because of the topic.
    pub fn deny(&self, topic: &str, error: Error) {
        let now = Instant::now();
        let denied = Some((error, now + self.denied_for));
        self.lock()
            .entry(topic.into())
            .or_insert(Unavailable { since: now, denied: None })
            .denied = denied;
    }

    /// The reason why the topic may not be in a transaction now; none if it may.
    pub fn denial(&self, topic: &str) -> Option<Error> {
        let mut known = self.lock();
        let topic = known.get_mut(topic)?;
        let (error, until) = topic.denied.as_ref()?;
        if Instant::now() < *until {
            return Some(error.clone());
        }
        // The wait does not start over: now the topic opens or is refused.
        topic.denied = None;
        None
    }

    /// Notes that the topic can't be opened; true if it has been waited for long enough.
    pub fn failed(&self, topic: &Arc<str>) -> bool {
        let now = Instant::now();
        let mut known = self.lock();
        let topic =
            known.entry(Arc::clone(topic)).or_insert(Unavailable { since: now, denied: None });
        topic.denied.is_some() || now.duration_since(topic.since) >= self.patience
    }

    /// Notes that the topic is open.
    pub fn opened(&self, topic: &str) {
        self.lock().remove(topic);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Unavailable>> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const LONG: Duration = Duration::from_secs(1_000);

    fn error() -> Error {
        Error::new(ErrorKind::TopicUnavailable, "no right")
    }

    #[test]
    fn a_topic_is_waited_for_until_patience_ends_and_anew_once_it_was_open() {
        let topic: Arc<str> = "t".into();
        assert!(!UnavailableTopics::new(LONG, LONG).failed(&topic));
        let topics = UnavailableTopics::new(Duration::ZERO, LONG);
        assert!(topics.failed(&topic));
        let topics = UnavailableTopics::new(Duration::from_millis(50), LONG);
        assert!(!topics.failed(&topic));
        std::thread::sleep(Duration::from_millis(60));
        assert!(topics.failed(&topic));
        topics.opened(&topic);
        assert!(!topics.failed(&topic));
    }

    #[test]
    fn a_topic_for_which_a_transaction_failed_is_denied_for_a_while() {
        let topic: Arc<str> = "t".into();
        let topics = UnavailableTopics::new(LONG, LONG);
        assert!(topics.denial(&topic).is_none());
        topics.deny(&topic, error());
        assert!(topics.denial(&topic).is_some() && topics.failed(&topic));
        assert!(topics.denial("other").is_none());
        let topics = UnavailableTopics::new(LONG, Duration::ZERO);
        topics.deny(&topic, error());
        assert!(topics.denial(&topic).is_none(), "it is tried again");
    }
}
