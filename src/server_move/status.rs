//! Shows how far a move is, and what to do next.

use serde::Serialize;
use slog::Logger;

use super::{
    Servers,
    end::{End, Ends},
};
use crate::{
    Lsn, Result,
    startup::{MoveRecord, Side, Stage},
};

/// A move, as both servers have it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MoveStatus {
    /// `none`, `prepared`, `finished` or `closed`.
    pub stage: &'static str,
    /// The old server.
    pub old: ServerStatus,
    /// The new server.
    pub new: ServerStatus,
    /// The position on the old server up to which everything has to be, or was, delivered before the
    /// new one is read; none before `finish` has marked it.
    pub marker: Option<Lsn>,
    /// What to do next.
    pub next: String,
}

/// One server of a move.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Address and database.
    pub address: String,
    /// Major version.
    pub version: i32,
    /// Name of the slot.
    pub slot: String,
    /// Position up to which the slot is confirmed; none if there is no slot.
    pub confirmed_lsn: Option<Lsn>,
    /// End of the server's WAL.
    pub wal_end_lsn: Lsn,
    /// Process ID of the server process that reads the slot.
    pub active_pid: Option<i32>,
}

/// Reads the state of a move from both servers, and changes nothing.
///
/// # Errors
/// A server can't be asked.
pub async fn status(servers: &Servers, log: &Logger) -> Result<MoveStatus> {
    let ends = Ends::connect(servers, log).await?;
    let (old_record, new_record) = (ends.old.record().await?, ends.new.record().await?);
    let (old, new) = (server_status(&ends.old).await?, server_status(&ends.new).await?);
    let is_ours = |record: &&MoveRecord, side: Side, other: &End| {
        record.side == side && record.is_with(other.system.system_id)
    };
    let old_record = old_record.as_ref().filter(|record| is_ours(record, Side::Old, &ends.new));
    let new_record = new_record.as_ref().filter(|record| is_ours(record, Side::New, &ends.old));
    let stages = (old_record.map(|record| record.stage), new_record.map(|record| record.stage));
    let (stage, next) = match stages {
        (None, None) => ("none", "run `factlib move prepare`"),
        (Some(Stage::Closed), None) => ("closed", "nothing: the move is closed"),
        (Some(Stage::Closed), Some(_)) => ("finished", "run `factlib move close` again"),
        (None, Some(_)) | (Some(_), None) => (
            "none",
            "run `factlib move prepare` again: it was interrupted (or `factlib move abort`)",
        ),
        (Some(_), Some(Stage::Prepared)) => (
            "prepared",
            "switch the services that emit events to the new server, then run `factlib move finish`",
        ),
        (Some(_), Some(_)) if new.active_pid.is_none() => (
            "finished",
            "set postgres.url of the relay to the new server and restart it, then run \
             `factlib move close`",
        ),
        (Some(_), Some(_)) => ("finished", "run `factlib move close`"),
    };
    let marker = old_record.and_then(|record| record.marker);
    Ok(MoveStatus { stage, old, new, marker, next: next.to_owned() })
}

async fn server_status(end: &End) -> Result<ServerStatus> {
    let slot = end.slot().await?;
    Ok(ServerStatus {
        address: end.address(),
        version: end.server.major(),
        slot: end.slot_name().to_owned(),
        confirmed_lsn: slot.as_ref().map(|slot| slot.confirmed),
        wal_end_lsn: end.system.wal_end,
        active_pid: slot.and_then(|slot| slot.active_pid),
    })
}
