//! Remembers hosts and addresses that did not answer, so that they are tried last for a while.
//!
//! A host that refuses a connection costs no time. One that drops packets costs its share of the
//! time limit at each connection, and a program may open several at its start and another one
//! whenever it loses one. The memory expires, because the first host of the list is usually the
//! preferred one.

use std::{
    collections::HashMap,
    hash::Hash,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time for which a host or address is tried last after it did not answer.
const TRIED_LAST_FOR: Duration = Duration::from_secs(60);

/// Hosts and addresses that did not answer, with the time; shared among clones.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentHosts(Arc<Mutex<HashMap<HostOrAddress, Instant>>>);

/// A host or an address that can fail to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostOrAddress {
    /// A host, by its index in the list: none of its addresses answered, or its name was not
    /// resolved in time.
    Host(usize),
    Address(SocketAddr),
}

impl SilentHosts {
    /// Records that it did not answer in time.
    pub fn mark_silent(&self, key: HostOrAddress) {
        self.lock().insert(key, Instant::now());
    }

    /// Records that it answered, be it with a refusal.
    pub fn mark_answered(&self, key: HostOrAddress) {
        self.lock().remove(&key);
    }

    /// Moves items that were silent recently to the end, and keeps the order otherwise.
    pub fn silent_last<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> HostOrAddress) -> Vec<T> {
        let silent_since = self.lock();
        let is_silent = |item: &T| {
            silent_since.get(&key(item)).is_some_and(|since| since.elapsed() < TRIED_LAST_FOR)
        };
        // The sort is stable.
        items.sort_by_key(is_silent);
        items
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostOrAddress, Instant>> {
        // No code panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_is_tried_last_for_a_while() {
        let silent = SilentHosts::default();
        let order = || silent.silent_last(vec![0, 1, 2], |host| HostOrAddress::Host(*host));
        assert_eq!(order(), [0, 1, 2]);
        silent.mark_silent(HostOrAddress::Host(0));
        assert_eq!(order(), [1, 2, 0]);
        silent.clone().mark_silent(HostOrAddress::Host(1));
        assert_eq!(order(), [2, 0, 1]);
        silent.mark_answered(HostOrAddress::Host(0));
        assert_eq!(order(), [0, 2, 1]);
        tokio::time::advance(TRIED_LAST_FOR).await;
        assert_eq!(order(), [0, 1, 2]);
    }
}
