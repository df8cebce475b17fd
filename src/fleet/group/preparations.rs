//! Pipelines that are prepared while other instances still run them, some at a time: if all started at
//! once, those that run here would stand still meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_rt::time::timeout;
use futures_util::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, LocalBoxFuture, abortable},
    stream::FuturesUnordered,
};
use tokio::sync::{Notify, Semaphore};

/// The most pipelines that are prepared at the same time. More would take the processor from those that
/// are just moving, and make their moves longer.
const AT_ONCE: usize = 4;

/// After so long, one that is not ready, such as one with a wrong password, holds up the others no
/// longer.
const TURN: Duration = Duration::from_secs(5);

/// Pipelines that are prepared or wait for their turn.
pub(super) struct Preparations {
    turns: Arc<Semaphore>,
    /// Each ends when its pipeline is ready.
    under_way: FuturesUnordered<LocalBoxFuture<'static, Result<String, Aborted>>>,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    handle: AbortHandle,
    /// Told to start it without a turn.
    now: Arc<Notify>,
}

impl Default for Preparations {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let (under_way, entries) = (FuturesUnordered::new(), BTreeMap::new());
        Preparations { turns, under_way, entries }
    }
}

impl Preparations {
    /// Prepares a pipeline when it is its turn. `start` starts it and ends when it is ready.
    pub fn begin<F: Future<Output = ()> + 'static>(
        &mut self,
        name: String,
        start: impl FnOnce() -> F + 'static,
    ) {
        let (turns, of) = (Arc::clone(&self.turns), name.clone());
        let now = Arc::<Notify>::default();
        let hurry = Arc::clone(&now);
        let preparing = async move {
            let turn = tokio::select! {
                turn = turns.acquire_owned() => turn.ok(),
                () = hurry.notified() => None,
            };
            let mut ready = std::pin::pin!(start());
            if timeout(TURN, &mut ready).await.is_err() {
                drop(turn);
                ready.await;
            }
            of
        };
        let (preparing, handle) = abortable(preparing);
        self.under_way.push(preparing.boxed_local());
        if let Some(before) = self.entries.insert(name, Entry { handle, now }) {
            before.handle.abort();
        }
    }

    /// Starts a pipeline at once, if it waits for its turn.
    pub fn hurry(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            entry.now.notify_one();
        }
    }

    /// Forgets a pipeline, which is not started any more if it waits for its turn.
    pub fn forget(&mut self, name: &str) {
        if let Some(entry) = self.entries.remove(name) {
            entry.handle.abort();
        }
    }

    /// Waits for the next pipeline that is ready; for ever if none is prepared.
    pub async fn next(&mut self) -> String {
        loop {
            match self.under_way.next().await {
                Some(Ok(name)) => {
                    self.entries.remove(&name);
                    return name;
                }
                Some(Err(Aborted)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use tokio::sync::watch;

    use super::*;

    #[actix_rt::test]
    async fn some_are_prepared_at_a_time_and_a_forgotten_one_is_never_started() {
        let (ready, started) = (watch::Sender::new(0), Rc::<RefCell<Vec<usize>>>::default());
        let mut preparations = Preparations::default();
        for number in 0..7 {
            let (mut ready, started) = (ready.subscribe(), Rc::clone(&started));
            preparations.begin(format!("p{number}"), move || {
                started.borrow_mut().push(number);
                async move {
                    let _ = ready.wait_for(|ready| *ready > number).await;
                }
            });
        }
        assert!(preparations.next().now_or_never().is_none());
        assert_eq!(*started.borrow(), [0, 1, 2, 3]);
        preparations.forget("p4");
        ready.send_replace(1);
        assert_eq!(preparations.next().await, "p0");
        assert!(preparations.next().now_or_never().is_none());
        assert_eq!(*started.borrow(), [0, 1, 2, 3, 5]);
        preparations.hurry("p6");
        assert!(preparations.next().now_or_never().is_none());
        assert_eq!(started.borrow().last(), Some(&6));
    }
}
