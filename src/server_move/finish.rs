//! Finishes a move: waits until nothing is written on the old server, marks its WAL, waits until the
//! relay has delivered everything up to the mark, then lets a relay read the new server.
//!
//! The mark is the end of the WAL after the record of the move was committed, so every event that was
//! committed before has a lower position, also one of an asynchronous commit. An event that commits
//! after the mark begins the wait anew.

use std::{collections::HashSet, time::Duration};

use slog::Logger;
use tokio::time::{Instant, interval, sleep_until};
use tokio_postgres::types::PgLsn;

use super::{
    Servers, Tell,
    end::{End, Ends},
    writers::{OpenTransaction, WriterWatch, open_transactions, sessions},
};
use crate::{
    Event, Lsn, Result,
    startup::{Side, Stage},
};

/// Interval of asking the old server: no event signals what a slot has confirmed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of lines while it waits for the same thing.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Waits until no event was committed on the old server for `quiet` and the relay has delivered all
/// that were, then hands over to a relay of the new server. Returns the position on the old server up
/// to which everything is delivered.
///
/// It waits without a limit, and can be interrupted and run again.
///
/// # Errors
/// No move is prepared, a slot is unusable, or a server can't be asked.
pub async fn finish(
    servers: &Servers,
    quiet: Duration,
    tell: Tell<'_>,
    log: &Logger,
) -> Result<Lsn> {
    let ends = Ends::connect(servers, log).await?;
    let (old_record, new_record) = ends.records().await?;
    if let (Stage::Finished, Some(marker)) = (new_record.stage, old_record.marker) {
        tell(&format!("the move was finished before, at {marker}"));
        return Ok(marker);
    }
    ends.new.usable_slot().await?;
    ends.old.usable_slot().await?;
    wait_for_open_transactions(&ends.old, tell).await?;
    let watch = WriterWatch::start(&servers.old, log).await?;
    let mut finishing =
        Finishing { old: &ends.old, watch, quiet, late: 0, said: Instant::now(), tell };
    let marker = loop {
        finishing.wait_until_quiet().await?;
        if !finishing.no_transaction_is_open().await? {
            continue;
        }
        let mut record = ends.record_of(Side::Old, Stage::Prepared, false);
        record.write(&ends.old.client).await?;
        let marker = flushed(&ends.old).await?;
        record.marker = Some(marker);
        record.write(&ends.old.client).await?;
        tell(&format!(
            "marked: the old server's WAL at {marker}; waiting until the relay is there"
        ));
        if finishing.drain(marker).await? {
            record.stage = Stage::Finished;
            record.write(&ends.old.client).await?;
            break marker;
        }
    };
    // Last: from here on, a relay may read the new server.
    let record = ends.record_of(Side::New, Stage::Finished, new_record.slot_created);
    record.write(&ends.new.client).await?;
    tell(&format!("finished: every event of {} is delivered", ends.old.name()));
    Ok(marker)
}

/// End of the WAL that is on the server's disk.
async fn flushed(end: &End) -> Result<Lsn> {
    Ok(end.value::<PgLsn>("SELECT pg_current_wal_flush_lsn()").await?.into())
}

/// Waits until the transactions that are open now have ended, before a slot would wait for them.
async fn wait_for_open_transactions(old: &End, tell: Tell<'_>) -> Result<()> {
    let open = open_transactions(old).await?;
    let mut said = None;
    while let Some(first) = still_open(old, &open).await? {
        if said.is_none_or(|said: Instant| said.elapsed() > TELL_INTERVAL) {
            said = Some(Instant::now());
            tell(&format!("waiting: {} is open, and may commit events", first.description));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn still_open(
    old: &End,
    before: &HashSet<OpenTransaction>,
) -> Result<Option<OpenTransaction>> {
    if before.is_empty() {
        return Ok(None);
    }
    Ok(open_transactions(old).await?.into_iter().find(|open| before.contains(open)))
}

struct Finishing<'a> {
    old: &'a End,
    watch: WriterWatch,
    quiet: Duration,
    /// Events seen since the watch began.
    late: u64,
    /// Time of the last line about waiting.
    said: Instant,
    tell: Tell<'a>,
}

impl Finishing<'_> {
    /// Waits until no event was committed for the time.
    async fn wait_until_quiet(&mut self) -> Result<()> {
        let quiet = self.quiet;
        (self.tell)(&format!(
            "waiting until no event is committed for {quiet:?} on the old server"
        ));
        let mut until = Instant::now() + quiet;
        loop {
            tokio::select! {
                biased;
                event = self.watch.next() => {
                    self.note_late(&event?).await?;
                    until = Instant::now() + quiet;
                }
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    /// Waits until the transactions that are open now have ended; false if an event was committed.
    async fn no_transaction_is_open(&mut self) -> Result<bool> {
        let open = open_transactions(self.old).await?;
        let mut look = interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                biased;
                event = self.watch.next() => {
                    self.note_late(&event?).await?;
                    return Ok(false);
                }
                _ = look.tick() => {
                    let Some(first) = still_open(self.old, &open).await? else { return Ok(true) };
                    if self.may_say() {
                        let what = first.description;
                        (self.tell)(&format!("waiting: {what} is open, and may commit events"));
                    }
                }
            }
        }
    }

    /// Waits until everything up to `marker` is delivered; false if an event was committed meanwhile.
    async fn drain(&mut self, marker: Lsn) -> Result<bool> {
        let mut look = interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                biased;
                event = self.watch.next() => {
                    let event = event?;
                    (self.tell)("late writer: an event was committed on the old server after the \
                                 mark; it is delivered first");
                    self.note_late(&event).await?;
                    return Ok(false);
                }
                _ = look.tick() => {
                    let slot = self.old.usable_slot().await?;
                    if slot.confirmed >= marker && self.watch.has_seen(marker) {
                        return Ok(true);
                    }
                    if !self.may_say() {
                        continue;
                    }
                    let left = bytesize::ByteSize::b(marker.distance_from(slot.confirmed));
                    (self.tell)(&match slot.active_pid {
                        Some(_) => format!("waiting: the relay has {left} of WAL to deliver"),
                        None => format!(
                            "waiting: no relay reads slot {} of {}, and {left} of WAL are not \
                             delivered: start a relay with that server's configuration",
                            self.old.slot_name(), self.old.name()
                        ),
                    });
                }
            }
        }
    }

    /// Tells of an event that was committed, and of who may have done it; not of each one.
    async fn note_late(&mut self, event: &Event) -> Result<()> {
        self.late += 1;
        if self.late > 1 && !self.may_say() {
            return Ok(());
        }
        self.said = Instant::now();
        let (kind, id) = (event.aggregate_type(), event.aggregate_id());
        let sessions = sessions(self.old).await?;
        (self.tell)(&format!(
            "still written: {} events on the old server so far, the last of {kind}/{id} at {}; \
             connected there: {sessions}",
            self.late,
            event.lsn()
        ));
        Ok(())
    }

    fn may_say(&mut self) -> bool {
        let may = self.said.elapsed() >= TELL_INTERVAL;
        if may {
            self.said = Instant::now();
        }
        may
    }
}
