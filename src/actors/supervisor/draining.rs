//! How a chain comes to its end in order: what was read is delivered and saved.

use std::time::Duration;

use actix::Addr;
use slog::{Logger, info, warn};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    Error, ErrorKind, Lsn, Result,
    actors::{checkpointer::Checkpointer, decoder::Decoder, wal_reader::WalReader},
    checkpoint::Checkpoint,
    messages::{Ask, Drain, Finish, Flush, HandedOn, ReaderEnded},
    startup::Start,
};

/// A save that is under way when a generation ends is waited for so long, because
/// what it saves need not be sent again.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const UNFINISHED: &str =
    "nothing is lost: what was in flight is sent again at the next start";

/// How far a chain has come.
pub(super) struct Extent {
    /// Batches that were cut.
    pub batches: u64,
    pub handed_on: Lsn,
    pub saved: Lsn,
}

impl Extent {
    /// Whether the server still has the history in which the chain came so far. Of one
    /// that was left, as for a backup, what was handed on says nothing about what has
    /// its positions now.
    pub fn is_of(&self, from: &Checkpoint, start: &Start) -> bool {
        from.is_of_the_same_history(&start.from)
            && self.handed_on <= start.wal_end
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

/// How far a chain has come whose reader has ended; none if it can't say so any more.
pub(super) async fn extent(
    decoder: &Addr<Decoder>,
    checkpointer: &Addr<Checkpointer>,
) -> Option<Extent> {
    let HandedOn { batches, lsn } = decoder.send(ReaderEnded).await.ok()?;
    let known = checkpointer.send(Ask).await.ok()?;
    // Batches without a message were not the decoder's.
    Some(Extent { batches: batches.max(known.batches), handed_on: lsn, saved: known.saved })
}

/// Stops reading, waits for what is in flight, confirms the last position.
pub(super) async fn drain(
    reader: Option<Addr<WalReader>>,
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
        // A reader whose connection ends meanwhile says nothing.
        let extent = extent(&decoder, &checkpointer).await;
        let batches = cut.max(extent.map_or(0, |extent| extent.batches));
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
