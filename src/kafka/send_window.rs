//! Records in flight outside of a pipeline, bounded by their bytes and ended in the order of sending.

use std::collections::VecDeque;

use super::resend::{InFlightRecords, RECORD_OVERHEAD};
use crate::{Result, record::Record};

/// Records in flight, each with what its sender wants to know at its end.
pub(crate) struct SendWindow<T> {
    in_flight: VecDeque<(T, usize, InFlightRecords)>,
    bytes: usize,
    limit: usize,
}

impl<T> SendWindow<T> {
    /// A window of so many bytes.
    pub fn new(limit: usize) -> Self {
        SendWindow { in_flight: VecDeque::new(), bytes: 0, limit }
    }

    /// True if the record may be sent now; one that is larger than the window goes alone.
    pub fn has_room(&self, record: &Record) -> bool {
        self.in_flight.is_empty() || self.bytes + memory(record) <= self.limit
    }

    /// Adds a record that was sent.
    pub fn push(&mut self, of: T, bytes: usize, delivery: InFlightRecords) {
        self.bytes += bytes;
        self.in_flight.push_back((of, bytes, delivery));
    }

    /// Waits until the oldest record has ended; none if there is none. Cancel-safe.
    pub async fn oldest(&mut self) -> Option<(T, Result<()>)> {
        let (.., delivery) = self.in_flight.front_mut()?;
        let answer = delivery.acknowledged().await;
        let (of, bytes, _) = self.in_flight.pop_front()?;
        self.bytes -= bytes;
        Some((of, answer))
    }
}

/// Memory for a record.
pub(crate) fn memory(record: &Record) -> usize {
    record.value.as_ref().map_or(0, |value| value.len()) + record.key.len() + RECORD_OVERHEAD
}
