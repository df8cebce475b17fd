//! Drops the slot that is no longer needed: the old server's after a move, the new server's in place of
//! one.

use factlib_postgres::Slot;
use slog::Logger;

use super::{
    Servers, Tell,
    end::{End, Ends},
    unread::{saved_position, unread_events},
};
use crate::{
    Error, ErrorKind, Result,
    config::StoreKind,
    startup::{MoveRecord, Side, Stage},
};

/// Drops the slot of the old server after a finished move, and removes the record of the move from the
/// new one. The old server keeps a record that refuses later starts there.
///
/// If events would be lost, or no relay reads the new server yet, `accept` has to return true for the
/// sentence that says so.
///
/// # Errors
/// [`ErrorKind::SlotInUse`] while a relay reads the old server; [`ErrorKind::Config`] if the move is
/// not finished, or something was not accepted.
pub async fn close(
    servers: &Servers,
    accept: impl Fn(&str) -> bool,
    tell: Tell<'_>,
    log: &Logger,
) -> Result<()> {
    let ends = Ends::connect(servers, log).await?;
    let Ends { old, new } = &ends;
    let record = match (old.record().await?, new.record().await?) {
        (Some(record), None) if record.stage == Stage::Closed => {
            tell(&format!(
                "closed: the move from {} to {}, before",
                ends.old.address(),
                new.address()
            ));
            return Ok(());
        }
        // An earlier run ended before its last step.
        (Some(record), Some(_)) if record.stage == Stage::Closed => record,
        _ => finished(&ends).await?,
    };
    if record.stage != Stage::Closed && !is_read(new, log).await? {
        let what = format!("no relay has read {} since the move", new.name());
        require(accept, what, "start the relay there first, or repeat with --yes")?;
        return drop_old_slot(&ends, record, |_| true, tell, log).await;
    }
    drop_old_slot(&ends, record, accept, tell, log).await
}

async fn finished(ends: &Ends) -> Result<MoveRecord> {
    let (old, new) = ends.records().await?;
    if new.stage == Stage::Finished {
        return Ok(old);
    }
    let (from, to) = (ends.old.address(), ends.new.address());
    let what = format!("the move from {from} to {to} is not finished");
    Err(Error::new(ErrorKind::Config, what)
        .remedy("run `factlib move finish`, or `factlib move abort`"))
}

async fn drop_old_slot(
    ends: &Ends,
    mut record: MoveRecord,
    accept: impl Fn(&str) -> bool,
    tell: Tell<'_>,
    log: &Logger,
) -> Result<()> {
    let old = &ends.old;
    if old.slot().await?.is_some() {
        let unread = unread(old, log).await?;
        if unread > 0 {
            let what = format!(
                "{unread} events were committed on {} after the move and are not delivered; \
                 dropping its slot loses them",
                old.name()
            );
            let store = match old.config.checkpoint.store {
                StoreKind::File => ", with checkpoint.store = \"memory\"",
                _ => "",
            };
            let remedy = format!(
                "start a relay on the old server{store} until this command finds nothing, stop it, \
                 and find the service that writes there; or repeat with --yes"
            );
            require(accept, what, &remedy)?;
        }
        Slot::drop(&old.client, old.slot_name()).await?;
        tell(&format!("dropped: slot {} of {}", old.slot_name(), old.name()));
    }
    if saved_position(old, log).await?.is_some() {
        old.startup.store(log).remove(old.slot_name()).await?;
    }
    record.stage = Stage::Closed;
    record.write(&old.client).await?;
    ends.new.remove_record().await?;
    tell(&format!("closed: the move from {} to {}", old.address(), ends.new.address()));
    Ok(())
}

/// Gives a prepared move up: drops the slot on the new server, if the move created it, and removes the
/// record of the move. The relay goes on reading the old server.
///
/// If services have written to the new server, `accept` has to return true for the sentence that says
/// that their events are lost.
///
/// # Errors
/// [`ErrorKind::Config`] if the move is finished, or a loss was not accepted.
pub async fn abort(
    servers: &Servers,
    accept: impl Fn(&str) -> bool,
    tell: Tell<'_>,
    log: &Logger,
) -> Result<()> {
    let ends = Ends::connect(servers, log).await?;
    let Ends { old, new } = &ends;
    let (old_record, new_record) = (old.record().await?, new.record().await?);
    let is_finished = |record: &Option<MoveRecord>| {
        record.as_ref().is_some_and(|record| record.stage != Stage::Prepared)
    };
    if is_finished(&old_record) || is_finished(&new_record) {
        let what = format!("the move from {} to {} is finished", old.address(), new.address());
        return Err(Error::new(ErrorKind::Config, what)
            .remedy("to go back, prepare a move from the new server to the old one"));
    }
    let is_new =
        |record: &MoveRecord| record.side == Side::New && record.is_with(old.system.system_id);
    let Some(record) = new_record.filter(is_new) else {
        if old_record.is_some_and(|record| record.is_with(new.system.system_id)) {
            old.remove_record().await?;
        }
        tell(&format!("there is no move from {} to {}", old.address(), new.address()));
        return Ok(());
    };
    let has_slot = record.slot_created && new.slot().await?.is_some();
    if has_slot {
        let unread = unread(new, log).await?;
        if unread > 0 {
            let what = format!(
                "{unread} events were committed on {}; dropping its slot loses them",
                new.name()
            );
            let remedy = "finish the move instead, and then move back; or repeat with --yes";
            require(accept, what, remedy)?;
        }
    }
    old.remove_record().await?;
    if has_slot {
        Slot::drop(&new.client, new.slot_name()).await?;
        tell(&format!("dropped: slot {} of {}", new.slot_name(), new.name()));
    }
    if !record.slot_created {
        tell(&format!(
            "kept: slot {} of {}, which was there before; `factlib slot drop` drops it",
            new.slot_name(),
            new.name()
        ));
    }
    // Last: it keeps relays from reading the new server.
    new.remove_record().await?;
    tell(&format!("aborted: the move from {} to {}", old.address(), new.address()));
    Ok(())
}

/// True if a relay reads the new server, or has read it.
async fn is_read(new: &End, log: &Logger) -> Result<bool> {
    let slot = new.usable_slot().await?;
    Ok(slot.active_pid.is_some() || saved_position(new, log).await?.is_some())
}

/// Counts the undelivered events of a slot that nobody reads.
async fn unread(end: &End, log: &Logger) -> Result<u64> {
    let slot = end.usable_slot().await?;
    if let Some(pid) = slot.active_pid {
        let what = format!("slot {} of {} is read by PID {pid}", end.slot_name(), end.name());
        return Err(Error::new(ErrorKind::SlotInUse, what)
            .remedy("stop the relay of that server, then run this again"));
    }
    unread_events(end, log).await
}

fn require(accept: impl Fn(&str) -> bool, what: String, remedy: &str) -> Result<()> {
    match accept(&what) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Config, what).remedy(remedy)),
    }
}
