//! Logs each of the client's error messages once a minute, and not at each retry.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time for which a repeated message is left out of the log.
const REPEATED_AFTER: Duration = Duration::from_secs(60);

/// The complaints of the last minute.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// True if the same was not said within the last minute, of the same broker.
    pub fn is_news(&self, reason: &str) -> bool {
        let now = Instant::now();
        // Nothing panics while it is held.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, since| now.duration_since(*since) < REPEATED_AFTER);
        // Each try takes another time: `… failed: Connection refused (after 3ms in state CONNECT)`.
        let what = reason.split(" (after ").next().unwrap_or(reason);
        if said.contains_key(what) {
            return false;
        }
        said.insert(what.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_try_of_a_broker_is_no_news() {
        let complaints = Complaints::default();
        assert!(complaints.is_news("a:1/1: refused (after 3ms in state CONNECT)"));
        assert!(complaints.is_news("b:1/2: refused (after 3ms in state CONNECT)"));
        assert!(!complaints.is_news("a:1/1: refused (after 4ms in state CONNECT)"));
        assert!(!complaints.is_news("b:1/2: refused (after 1ms in state CONNECT, 2 identical)"));
        tokio::time::advance(REPEATED_AFTER).await;
        assert!(complaints.is_news("a:1/1: refused (after 3ms in state CONNECT)"));
    }
}
