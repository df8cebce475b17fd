//! Defines the metric of a fleet; all others have the label `pipeline` there.

use super::{Family, Kind, labelled};

/// Tells which pipelines an error has ended.
pub(in crate::ops) fn pipeline_up(up: &[(String, bool)]) -> Family<'_> {
    labelled(
        Kind::Gauge,
        "pipeline_up",
        "1 for a pipeline of a fleet that was started, 0 for one that an error has ended",
        up.iter().map(|(name, up)| ([("pipeline", name.as_str())], u64::from(*up))),
    )
}
