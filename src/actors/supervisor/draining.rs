//! Drains a chain: events that were read are delivered and their position is saved.

use std::time::Duration;

use actix::Addr;
use slog::{Logger, info, warn};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    Error, ErrorKind, Lsn, Result,
    actors::{
        checkpointer::Checkpointer, commit_gate::CommitGate, decoder::Decoder,
        wal_reader::WalReader,
    },
    checkpoint::Checkpoint,
    messages::{
        CloseGate, DecodedProgress, Drain, Finish, Flush, GetSavedProgress, ReaderEnded,
        UntilReleased,
    },
    startup::Start,
};

/// Time to wait for a save that is under way when a generation ends: events whose position is
/// saved need not be sent again.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const UNFINISHED: &str =
    "nothing is lost: what was in flight is sent again at the next start";

/// The progress of a chain.
pub(super) struct ChainProgress {
    /// Number of batches that were read.
    pub batches: u64,
    pub decoded: Lsn,
    /// Commit position of the last transaction with an event.
    pub last_event: Option<Lsn>,
    pub saved: Lsn,
}

impl ChainProgress {
    /// True if the server still has the history that the chain has read. Positions of a history
    /// that was left, as for a backup, mean something else now.
    pub fn is_of(&self, from: &Checkpoint, start: &Start) -> bool {
        from.is_of_the_same_history(&start.from)
            && self.decoded <= start.wal_end
            // A store in the database goes back together with it.
            && self.saved <= start.from.lsn
    }
}

/// Lets the checkpointer save what is safe, within reason.
pub(super) async fn settle(checkpointer: &Addr<Checkpointer>) {
    let (reply, saved) = oneshot::channel();
    checkpointer.do_send(Flush { batches: None, reply });
    // Too late only means that more is sent again.
    let _ = timeout(SETTLE_TIMEOUT, saved).await;
}

/// Closes the gate of a reader that has ended, so that nothing of it comes to the decoder any more.
pub(super) async fn close(gate: Option<Addr<CommitGate>>) {
    if let Some(gate) = gate {
        // A gate that has ended passes nothing on.
        let _ = gate.send(CloseGate).await;
    }
}

/// Asks for the progress of a chain whose reader has ended; none if its actors are gone.
pub(super) async fn chain_progress(
    decoder: &Addr<Decoder>,
    checkpointer: &Addr<Checkpointer>,
) -> Option<ChainProgress> {
    let DecodedProgress { batches, lsn, last_event } = decoder.send(ReaderEnded).await.ok()?;
    let known = checkpointer.send(GetSavedProgress).await.ok()?;
    // Batches without a message were not the decoder's.
    let (batches, saved) = (batches.max(known.batches), known.saved);
    Some(ChainProgress { batches, decoded: lsn, last_event, saved })
}

/// Stops reading, waits for what is in flight, confirms the last position.
pub(super) async fn drain(
    reader: Option<Addr<WalReader>>,
    gate: Option<Addr<CommitGate>>,
    decoder: Addr<Decoder>,
    checkpointer: Addr<Checkpointer>,
    limit: Duration,
    log: &Logger,
) -> Result<()> {
    let (reply, saved) = oneshot::channel();
    let finishing = async {
        let cut = match &reader {
            Some(reader) => reader.send(Drain).await.unwrap_or(0),
            None => 0,
        };
        if cut == 0 {
            // There is no reader, its connection has ended, or it has read nothing.
            close(gate).await;
        } else if let Some(gate) = gate {
            let (reply, released) = oneshot::channel();
            gate.do_send(UntilReleased(reply));
            let _ = released.await;
        }
        // A reader whose connection ends meanwhile says nothing.
        let progress = chain_progress(&decoder, &checkpointer).await;
        let batches = cut.max(progress.map_or(0, |progress| progress.batches));
        checkpointer.do_send(Flush { batches: Some(batches), reply });
        saved.await.ok()
    };
    let lsn = match timeout(limit, finishing).await {
        Ok(Some(lsn)) => lsn,
        Ok(None) => {
            let what = "the checkpointer ended while the last position was to be saved";
            return Err(Error::new(ErrorKind::ActorFailed, what).remedy(UNFINISHED));
        }
        Err(_) => {
            settle(&checkpointer).await;
            let what =
                format!("events were still in flight {limit:?} after the stop was asked for");
            let remedy = format!("{UNFINISHED}; pipeline.drain_timeout sets the limit");
            return Err(Error::new(ErrorKind::DrainTimeout, what).remedy(remedy));
        }
    };
    // Without a connection, there is nobody to confirm it to.
    let Some(reader) = reader else { return Ok(()) };
    match timeout(SETTLE_TIMEOUT, reader.send(Finish(lsn))).await {
        Ok(Ok(Ok(()))) => info!(log, "drained"; "lsn" => %lsn),
        // Saved is what counts; the server learns the position at the next start.
        _ => warn!(log, "the last position is saved, but was not confirmed"; "lsn" => %lsn),
    }
    Ok(())
}
