//! The byte window, which bounds the memory of everything below the reader.

use std::{fmt, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Budget of bytes between the WAL and Kafka's acknowledgement.
///
/// The reader acquires a permit for a batch before it hands the batch on; the
/// permit travels with the batch and its parts and is given back when the last
/// of them is gone. The window outlives the actors, so bytes of a failed generation that the
/// Kafka client still has in flight count.
#[derive(Clone)]
pub struct ByteWindow {
    free: Arc<Semaphore>,
    size: u32,
}

impl ByteWindow {
    /// Creates a window of `size` bytes.
    pub fn new(size: u32) -> Self {
        ByteWindow { free: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Waits until `bytes` are free. A request larger than the window takes all of it, and so
    /// passes alone. Waiters are served in order. Cancel-safe.
    pub async fn acquire(&self, bytes: usize) -> WindowPermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.size);
        let permit = Arc::clone(&self.free).acquire_many_owned(bytes).await;
        WindowPermit(Arc::new(permit.expect("the semaphore is never closed")))
    }

    /// Does the same as [`acquire`](Self::acquire), but never waits.
    pub fn try_acquire(&self, bytes: usize) -> Option<WindowPermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.size);
        let permit = Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()?;
        Some(WindowPermit(Arc::new(permit)))
    }

    /// Bytes in flight.
    pub fn used(&self) -> usize {
        (self.size as usize).saturating_sub(self.free.available_permits())
    }

    /// Bytes that may be in flight.
    pub fn size(&self) -> usize {
        self.size as usize
    }
}

/// A share of the [`ByteWindow`], given back when its last clone is dropped.
#[derive(Clone)]
pub struct WindowPermit(Arc<OwnedSemaphorePermit>);

impl WindowPermit {
    /// The number of bytes it holds.
    pub fn bytes(&self) -> usize {
        self.0.num_permits()
    }
}

impl fmt::Debug for WindowPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowPermit({})", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_last_clone_frees_the_bytes() {
        let window = ByteWindow::new(100);
        let permit = window.try_acquire(60).expect("60 of 100 fit");
        let part = permit.clone();
        drop(permit);
        assert_eq!(window.used(), 60);
        assert!(window.try_acquire(41).is_none());
        drop(part);
        assert_eq!(window.used(), 0);
    }

    #[test]
    fn more_than_the_window_passes_alone() {
        let window = ByteWindow::new(100);
        let small = window.try_acquire(1).expect("1 of 100 fits");
        assert!(window.acquire(1_000_000).now_or_never().is_none());
        drop(small);
        let large = window.acquire(1_000_000).now_or_never().expect("the window is empty");
        assert_eq!((large.bytes(), window.used()), (100, 100));
    }
}
