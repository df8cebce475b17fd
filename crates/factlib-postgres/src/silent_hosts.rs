//! Hosts and addresses that did not answer: they are tried after the others for a while.
//!
//! A host that refuses a connection costs no time. One that swallows packets costs its share of the
//! time limit at each connection, and the relay opens several at a start and another one whenever
//! it loses one. So a host that let its time pass is tried last for a while. Not for ever: where
//! any server will do, the first one of the list is preferred for a reason.

use std::{
    collections::HashMap,
    hash::Hash,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time for which a place is tried last after it did not answer.
const WHILE: Duration = Duration::from_secs(60);

/// The memory of one connection string, and of all its clones.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentHosts(Arc<Mutex<HashMap<Place, Instant>>>);

/// A host or an address that can be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A host, by its index in the list: no address of it answers, or its name can't be resolved in
    /// time.
    Host(usize),
    Address(SocketAddr),
}

impl SilentHosts {
    /// Notes that it did not answer in time.
    pub fn note(&self, place: Place) {
        self.lock().insert(place, Instant::now());
    }

    /// Notes that it answered, if only with a refusal.
    pub fn forget(&self, place: Place) {
        self.lock().remove(&place);
    }

    /// Moves places that were silent recently to the end; keeps the order otherwise.
    pub fn order<T>(&self, mut places: Vec<T>, place: impl Fn(&T) -> Place) -> Vec<T> {
        let noted = self.lock();
        let is_silent =
            |item: &T| noted.get(&place(item)).is_some_and(|since| since.elapsed() < WHILE);
        // Stable: among equals, the order stays.
        places.sort_by_key(is_silent);
        places
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Instant>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_silent_is_tried_last_for_a_while() {
        let silent = SilentHosts::default();
        let order = || silent.order(vec![0, 1, 2], |host| Place::Host(*host));
        assert_eq!(order(), [0, 1, 2]);
        silent.note(Place::Host(0));
        assert_eq!(order(), [1, 2, 0]);
        silent.clone().note(Place::Host(1));
        assert_eq!(order(), [2, 0, 1]);
        silent.forget(Place::Host(0));
        assert_eq!(order(), [0, 2, 1]);
        tokio::time::advance(WHILE).await;
        assert_eq!(order(), [0, 1, 2]);
    }
}
