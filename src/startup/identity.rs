//! Compares the server's identity, its cluster and timeline, with those of saved positions.

use factlib_postgres::{ReplicationClient, SystemId, TimelineHistory};
use slog::{Logger, info};

use super::position::ACCEPT;
use crate::{
    Error, ErrorKind, Result,
    checkpoint::{Checkpoint, CheckpointStore},
};

/// Refuses a cluster that replaced the one read so far, unless the store has a checkpoint in it. An
/// empty cluster with an empty store inside it would otherwise look like the very first start.
pub(super) async fn check_cluster_change(
    store: &dyn CheckpointStore,
    slot: &str,
    cluster: u64,
    system: &SystemId,
) -> Result<()> {
    let known = match store.load(slot).await {
        Ok(checkpoint) => checkpoint.is_some_and(|saved| saved.system_id == system.system_id),
        // The table may be missing.
        Err(_) => false,
    };
    if known {
        return Ok(());
    }
    let what = format!(
        "the server is cluster {} now, and {} knows no position in it; this process has read \
         cluster {cluster}, of which facts may be missing",
        system.system_id,
        store.describe()
    );
    Err(Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT))
}

/// Reads the history of the server's timeline if the checkpoint was saved on another one.
pub(super) async fn history(
    replication: &mut ReplicationClient,
    saved: &Checkpoint,
    system: &SystemId,
    log: &Logger,
) -> Result<Option<TimelineHistory>> {
    // The history of another cluster would mean nothing.
    if saved.timeline == system.timeline || saved.system_id != system.system_id {
        return Ok(None);
    }
    info!(log, "the server was promoted or restored since the position was saved";
        "timeline" => system.timeline, "saved_timeline" => saved.timeline, "saved" => %saved.lsn);
    let read = replication.timeline_history(system.timeline).await.map_err(Error::from);
    read.map(Some).map_err(|error| match error.is_transient() {
        true => error,
        // Without the history, it is unknown whether the position means anything here.
        false => {
            let what = format!(
                "the position {} is of timeline {}, and the history from there to the \
                 server's timeline {} can't be read",
                saved.lsn, saved.timeline, system.timeline
            );
            Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT).caused_by(error)
        }
    })
}
