//! Reads the system clock for time stamps in status and records.

use std::time::{SystemTime, UNIX_EPOCH};

/// The current Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
