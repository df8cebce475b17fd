//! A pool of threads that the pipelines of a fleet share.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use actix_rt::{Arbiter, ArbiterHandle};

/// Threads that run actors. They end when the pool is dropped.
pub(crate) struct ThreadPool {
    arbiters: Box<[Arbiter]>,
    next: AtomicUsize,
}

impl ThreadPool {
    /// Starts one thread for each core. It needs an actix `System`.
    pub fn start() -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        ThreadPool {
            arbiters: (0..threads).map(|_| Arbiter::new()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// A thread for the next actors, in turn.
    pub fn next(&self) -> ArbiterHandle {
        let turn = self.next.fetch_add(1, Relaxed);
        self.arbiters[turn % self.arbiters.len()].handle()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}
