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
    /// True if the same was not said within the last minute.
    pub fn is_news(&self, complaint: &str) -> bool {
        let now = Instant::now();
        // Nothing panics while it is held.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, since| now.duration_since(*since) < REPEATED_AFTER);
        if said.contains_key(complaint) {
            return false;
        }
        said.insert(complaint.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_try_of_a_broker_is_no_news() {
        let complaints = Complaints::default();
        assert!(complaints.is_news("a:1: refused"));
        assert!(complaints.is_news("b:1: refused"));
        assert!(!complaints.is_news("a:1: refused"));
        tokio::time::advance(REPEATED_AFTER).await;
        assert!(complaints.is_news("a:1: refused"));
    }
}
