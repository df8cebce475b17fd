//! Defines the metrics of lag, and of what it leaves of the slot's limit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Family, gauge, optional_gauge};
use crate::status::PipelineStatus;

pub(super) fn families(status: &PipelineStatus) -> Vec<Family<'_>> {
    let age = |at| SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(at));
    vec![
        optional_gauge(
            "checkpoint_age_seconds",
            "Time since a position was last saved; grows while nothing moves",
            status.saved_at.map(|at| age(at).unwrap_or_default().as_secs()),
        ),
        gauge("lag_bytes", "WAL that is not delivered, as far as known", status.lag.bytes),
        gauge("lag_events", "Events that were read and are not delivered", status.lag.events),
        optional_gauge(
            "lag_seconds",
            "Age of the oldest transaction that was read and is not delivered",
            status.lag.seconds,
        ),
        optional_gauge(
            "wal_safe_bytes",
            "WAL that can still be written before the server invalidates the slot",
            status.safe_wal_bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        ),
        optional_gauge(
            "slot_lost_in_seconds",
            "Time until the server invalidates the slot, at the growth of the last two minutes",
            status.slot_lost_in_seconds,
        ),
    ]
}
