//! A decoded event.

/// An event out of the WAL.
pub struct Event {}
