//! Failover: the slot's flag by which standbys keep a copy, copies that can't be read yet, and events that
//! were sent and that the promoted server lacks.

use std::time::Duration;

use factlib_postgres::{Server, Slot, SqlSession, TimelinePosition};
use slog::{Logger, info, warn};
use tokio::time::timeout;

use super::{Start, Startup, history, position::ACCEPT};
use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::{Checkpoint, CheckpointStore},
};

/// What this process has read and sent, before the server was lost.
#[derive(Clone, Copy)]
pub(crate) struct SentUpTo<'a> {
    /// Start of the reading: its cluster and timeline.
    pub from: &'a Checkpoint,
    /// Commit position of the last transaction with an event.
    pub last_event: Lsn,
}

/// Refuses, for now, the copy of a slot on a standby, which can be read after a promotion.
pub(super) fn check_is_no_copy(name: &str, server: &Server, slot: &Slot) -> Result<()> {
    if !server.is_in_recovery() || !slot.synced {
        return Ok(());
    }
    let what =
        format!("slot {name} on this standby is a copy, which is kept in step with the primary's");
    let remedy = "it can be read once this standby is promoted; to read from a standby, name another \
                  slot with postgres.slot, or the primary with postgres.url";
    Err(Error::new(ErrorKind::PostgresUnavailable, what).remedy(remedy))
}

impl Startup {
    /// Sets the flag by which standbys keep a copy of an existing slot, if `postgres.failover` is on.
    ///
    /// A failure is logged and no error: the slot works, and is gone only after a failover.
    pub(super) async fn enable_failover(
        &self,
        client: &SqlSession,
        limit: Duration,
        log: &Logger,
    ) -> Result<()> {
        let name = &self.config.postgres.slot;
        if !self.config.postgres.failover {
            return Ok(());
        }
        let reading = Slot::read(client, name);
        let Some(slot) = self.answered(client, "for the slot", reading).await? else {
            return Ok(());
        };
        // The flag can't be set for a temporary slot, nor on a standby.
        if slot.failover != Some(false) || slot.temporary || slot.lost.is_some() {
            return Ok(());
        }
        let server = self.answered(client, "what it is", Server::read(client)).await?;
        if server.is_in_recovery() {
            return Ok(());
        }
        if slot.active_pid.is_some() {
            warn!(log, "the slot is in use, and gets the flag for failover when that ends";
                "slot" => name, "remedy" => "restart the relay");
            return Ok(());
        }
        let altering = async {
            let mut replication = self.replication(limit, log).await?;
            Ok::<_, Error>(replication.enable_failover(name).await?)
        };
        // The server waits, without a limit, for whoever took the slot meanwhile.
        let altered = timeout(limit, altering).await.unwrap_or_else(|elapsed| {
            let what = format!("slot {name} can't be altered");
            Err(Error::new(ErrorKind::SlotInUse, what).caused_by(elapsed))
        });
        match altered {
            Ok(()) => info!(log, "the slot now has the flag for failover"; "slot" => name),
            Err(error) => {
                warn!(log, "the slot gets no flag for failover: a standby has no copy of it";
                "slot" => name, "error" => %error,
                "remedy" => "set postgres.failover = false if it is not to follow a failover")
            }
        }
        Ok(())
    }

    /// Refuses a promoted server that lacks an event which this process has sent.
    pub async fn refuse_phantoms(
        &self,
        sent: SentUpTo<'_>,
        start: &Start,
        store: &dyn CheckpointStore,
        limit: Duration,
        log: &Logger,
    ) -> Result<()> {
        let SentUpTo { from, last_event } = sent;
        let (was, now) = (from.timeline, start.from.timeline);
        if from.system_id != start.from.system_id || was == now {
            return Ok(());
        }
        let mut replication = self.replication(limit, log).await?;
        let system = replication.identify_system().await?;
        let Some(history) = history(&mut replication, from, &system, log).await? else {
            return Ok(());
        };
        // The commit record begins at that position, and is in the history if its end is.
        let end = Lsn::new(last_event.as_u64().saturating_add(1));
        let TimelinePosition::Beyond(left) = history.locate(was, end) else { return Ok(()) };
        // The promoted server may have an older checkpoint: later starts have to refuse as well.
        let sent = Checkpoint { lsn: end, ..from.clone() };
        if let Err(error) = store.save(&sent).await {
            warn!(log, "the position up to which events were sent is not saved: another start \
                goes on from an older one"; "error" => %error);
        }
        let what = format!(
            "the server left timeline {was} at {left}, and this relay has sent events up to \
             {last_event}: Kafka may have events after {left} that the promoted server lacks"
        );
        let remedy = format!("{ACCEPT}; docs/postgresql.md says how to prevent it");
        Err(Error::new(ErrorKind::PositionLost, what).remedy(remedy))
    }
}
