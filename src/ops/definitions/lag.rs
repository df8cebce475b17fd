//! How far delivery is behind, and what that leaves of the slot's limit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Family, gauge, known};
use crate::status::PipelineStatus;

pub(super) fn families(status: &PipelineStatus) -> Vec<Family<'_>> {
    let age = |at| SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(at));
    vec![
        known(
            "checkpoint_age_seconds",
            "Since a position was last saved; grows where nothing moves",
            status.saved_at.map(|at| age(at).unwrap_or_default().as_secs()),
        ),
        gauge("lag_bytes", "WAL that is not delivered, as far as it is known", status.lag.bytes),
        gauge("lag_events", "Events that were read and are not delivered", status.lag.events),
        known(
            "lag_seconds",
            "Age of the oldest transaction that was read and is not delivered",
            status.lag.seconds,
        ),
        known(
            "wal_safe_bytes",
            "WAL that may yet be written before the server gives the slot up",
            status.safe_wal_bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        ),
        known(
            "slot_lost_in_seconds",
            "How long that lasts at the growth of the last two minutes",
            status.slot_lost_in_seconds,
        ),
    ]
}
