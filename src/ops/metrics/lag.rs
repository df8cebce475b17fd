//! How far delivery is behind, and what that leaves of the slot's limit.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{MetricType, gauge::ConstGauge},
};

use super::Metrics;
use crate::status::PipelineStatus;

pub(super) fn encode(to: &mut Metrics<'_>, status: &PipelineStatus) -> fmt::Result {
    let age = |at| SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(at));
    let age = status.saved_at.map(|at| age(at).unwrap_or_default().as_secs());
    let help = "Since a position was last saved; grows where nothing moves";
    to.known("checkpoint_age_seconds", help, age)?;
    to.gauge("lag_bytes", "WAL that is not delivered, as far as it is known", status.lag.bytes)?;
    to.gauge("lag_events", "Events that were read and are not delivered", status.lag.events)?;
    let help = "Age of the oldest transaction that was read and is not delivered";
    let seconds = to.family("lag_seconds", help, MetricType::Gauge)?;
    if let Some(lag) = status.lag.seconds {
        ConstGauge::new(lag).encode(seconds)?;
    }
    let safe = status.safe_wal_bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0));
    let help = "WAL that may yet be written before the server gives the slot up";
    to.known("wal_safe_bytes", help, safe)?;
    let help = "How long that lasts at the growth of the last two minutes";
    to.known("slot_lost_in_seconds", help, status.slot_lost_in_seconds)
}
