//! Defines the metrics of a fleet; those of its pipelines have the label `pipeline` there.

use super::{Family, Kind, counter, gauge, labelled};
use crate::ops::GroupStatus;

/// Tells which pipelines an error has ended.
pub(in crate::ops) fn pipeline_up(up: &[(String, bool)]) -> Family<'_> {
    labelled(
        Kind::Gauge,
        "pipeline_up",
        "1 for a pipeline of a fleet that was started, 0 for one that an error has ended",
        up.iter().map(|(name, up)| ([("pipeline", name.as_str())], u64::from(*up))),
    )
}

/// Describes an instance that shares its pipelines with others.
pub(in crate::ops) fn group(status: &GroupStatus) -> [Family<'static>; 4] {
    let count = |number: usize| number as u64;
    [
        gauge(
            "fleet_pipelines",
            "Pipelines that the group has assigned to this instance",
            count(status.pipelines),
        ),
        gauge(
            "fleet_instances",
            "Instances in the group; 0 while this one is not a member",
            count(status.instances),
        ),
        gauge(
            "fleet_unassigned_pipelines",
            "Pipelines that no instance of the group has room for",
            count(status.unassigned.len()),
        ),
        counter(
            "fleet_rebalances",
            "Assignments that this instance has had from the group",
            status.rebalances,
        ),
    ]
}
