//! Bounds the bytes that records occupy in librdkafka's queue by the size of the byte window.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Memory for a record beside its bytes, with the usual headers.
pub(crate) const RECORD_OVERHEAD: usize = 512;

/// Budget of bytes for records, shared by all producers of a client.
///
/// The window counts an event once, as it was read. Its record may be larger, and one of an
/// event that goes to several topics is there as often: these are counted here. Without a
/// budget, they wait as events.
#[derive(Clone)]
pub(super) struct QueueBudget {
    reserved: Arc<AtomicUsize>,
    size: usize,
}

impl QueueBudget {
    pub fn new(size: usize) -> Self {
        QueueBudget { reserved: Arc::default(), size }
    }

    /// True if nothing fits. A record reserves what is left, and may be larger than that: the
    /// largest passes alone.
    pub fn is_full(&self) -> bool {
        self.reserved.load(Relaxed) >= self.size
    }

    #[cfg(test)]
    pub fn reserved(&self) -> usize {
        self.reserved.load(Relaxed)
    }

    pub fn reserve(&self, cost: usize) {
        self.reserved.fetch_add(cost, Relaxed);
    }

    pub fn release(&self, cost: usize) {
        self.reserved.fetch_sub(cost, Relaxed);
    }
}

/// Bytes that a record reserves, whose headers have so many that are not usual.
pub(super) fn cost(key: Option<&[u8]>, value: Option<&[u8]>, headers: usize) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD
}
