//! What records may take in librdkafka's queue: as much as the byte window.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What a record costs beside its bytes, with the usual headers.
pub(crate) const RECORD_OVERHEAD: usize = 512;

/// Room for records, shared by all who send.
///
/// The window counts an event once, as it was read. Its record may be larger, and one of an
/// event that goes to several topics is there as often: these are counted here, and what
/// finds no room waits as an event.
#[derive(Clone)]
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    size: usize,
}

impl Room {
    pub fn new(size: usize) -> Self {
        Room { taken: Arc::default(), size }
    }

    /// True where nothing fits. A record takes what is left, and may be larger than that: the
    /// largest passes alone.
    pub fn is_full(&self) -> bool {
        self.taken.load(Relaxed) >= self.size
    }

    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    pub fn take(&self, cost: usize) {
        self.taken.fetch_add(cost, Relaxed);
    }

    pub fn give(&self, cost: usize) {
        self.taken.fetch_sub(cost, Relaxed);
    }
}

/// What a record costs whose headers have so many bytes that are not usual.
pub(super) fn cost(key: Option<&[u8]>, value: Option<&[u8]>, headers: usize) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD
}
