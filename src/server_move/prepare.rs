//! Prepares a move: checks both servers, and creates the slot on the new one.

use slog::Logger;

use super::{
    Servers, Tell,
    end::{End, Ends},
    refused,
    subscriptions::{replicated_outboxes, replicated_own_tables},
};
use crate::{
    Error, ErrorKind, Result,
    config::{Config, StoreKind},
    doctor::{self, CheckOutcome},
    setup,
    startup::{MoveRecord, Side, Stage},
};

/// Schema of factlib's own tables.
pub(super) const SCHEMA: &str = "factlib";

/// Checks that do not count here: `setup` judges the position itself, and this is the move.
const CHECKS_OF_SETUP: [&str; 3] = ["move", "slot", "other relays"];

/// Checks both servers, then creates slot, publication and tables on the new one, and records the move
/// on both. From then on, services may write to the new server. With `dry_run`, it only checks.
///
/// # Errors
/// A finding that has to be corrected first, with its remedy.
pub async fn prepare(servers: &Servers, dry_run: bool, tell: Tell<'_>, log: &Logger) -> Result<()> {
    let ends = Ends::connect(servers, log).await?;
    let Ends { old, new } = &ends;
    let (existing_old, existing_new) = (old.record().await?, new.record().await?);
    check_record(existing_old.as_ref(), &ends, old)?;
    check_record(existing_new.as_ref(), &ends, new)?;
    old.usable_slot().await?;
    tell(&format!("checked: {}, PostgreSQL {}", old.name(), old.server.major()));
    let new_config = for_setup(&new.config);
    check_new_server(&new_config, new, tell, log).await?;
    check_subscriptions(new, tell).await?;
    check_functions(&ends, tell).await?;
    let slot = new.slot().await?;
    if let Some(pid) = slot.as_ref().and_then(|slot| slot.active_pid)
        && existing_new.is_none()
    {
        let what = format!("slot {} of {} is read by PID {pid}", new.slot_name(), new.name());
        return Err(Error::new(ErrorKind::SlotInUse, what)
            .remedy("stop that relay, or name another slot with --other-slot"));
    }
    if dry_run {
        let verb = if slot.is_some() { "use" } else { "create" };
        tell(&format!("would {verb} slot {} on {}", new.slot_name(), new.name()));
        return Ok(());
    }
    // First, so that no relay reads the new server too early.
    MoveRecord::create_table(&new.client).await?;
    let slot_created = match &existing_new {
        Some(record) if record.side == Side::New => record.slot_created,
        _ => slot.is_none(),
    };
    ends.record_of(Side::New, Stage::Prepared, slot_created).write(&new.client).await?;
    tell("creating the slot on the new server, which waits for transactions that write there");
    let report = setup(&new_config, false, log).await?;
    tell(&format!("on {}:\n  {}", new.name(), report.to_string().replace('\n', "\n  ")));
    MoveRecord::create_table(&old.client).await?;
    let mut record = ends.record_of(Side::Old, Stage::Prepared, false);
    record.marker = existing_old.and_then(|old| old.marker);
    record.write(&old.client).await?;
    tell(&format!("prepared: the move from {} to {}", old.address(), new.address()));
    Ok(())
}

/// The configuration with which the new server is set up. The position in a file is still that of the
/// old server.
fn for_setup(config: &Config) -> Config {
    let mut config = config.clone();
    config.postgres.create = true;
    if config.checkpoint.store == StoreKind::File {
        config.checkpoint.store = StoreKind::Memory;
    }
    config
}

/// Refuses a server that takes part in another move, or whose move is past this step.
fn check_record(existing: Option<&MoveRecord>, ends: &Ends, end: &End) -> Result<()> {
    let Some(record) = existing else { return Ok(()) };
    let wanted = ends.record_of(end.side, Stage::Prepared, false);
    let failed =
        |what: String, remedy: &str| Err(Error::new(ErrorKind::Config, what).remedy(remedy));
    let (here, other) = (end.name(), &record.other_server);
    if !record.is_with(wanted.other_system_id) || record.other_slot != wanted.other_slot {
        return match (record.stage, end.side) {
            // The relay left this server long ago, and may come back.
            (Stage::Closed, Side::New) => Ok(()),
            _ => failed(
                format!("a move between {here} and {other} is not closed"),
                "finish and close it, or abort it",
            ),
        };
    }
    match (record.side == end.side, record.stage) {
        (true, Stage::Prepared) => Ok(()),
        (true, Stage::Finished) => failed(
            format!("the move between {here} and {other} is finished already"),
            "run `factlib move close`; `factlib move status` shows what is left",
        ),
        (true, Stage::Closed) => failed(
            format!("the relay was moved from {here} to {other}"),
            "set postgres.url to the server that it reads now",
        ),
        (false, Stage::Prepared) => failed(
            format!("the opposite move, between {here} and {other}, is not finished"),
            "finish it, or abort it",
        ),
        // Back again.
        (false, _) => Ok(()),
    }
}

/// Makes the checks of `factlib doctor` on the new server.
async fn check_new_server(config: &Config, new: &End, tell: Tell<'_>, log: &Logger) -> Result<()> {
    let checks = doctor::examine_postgres(config, log).await?;
    let mut checks: Vec<_> =
        checks.into_iter().filter(|check| !CHECKS_OF_SETUP.contains(&check.name)).collect();
    checks.retain(|check| check.outcome != CheckOutcome::Ok);
    let describe = |check: &doctor::Check| format!("{}: {}", check.name, check.found);
    let (errors, warnings): (Vec<_>, Vec<_>) =
        checks.iter().partition(|check| check.outcome == CheckOutcome::Error);
    for check in warnings {
        tell(&format!("warning: {}", describe(check)));
    }
    if let Some(first) = errors.first() {
        let all: Vec<_> = errors.iter().map(|check| describe(check)).collect();
        let what = format!("{} is not ready: {}", new.name(), all.join("; "));
        let remedy = first.remedy.clone().unwrap_or_else(|| "run `factlib doctor` there".into());
        return Err(refused(what).remedy(remedy));
    }
    tell(&format!("checked: {}, PostgreSQL {}", new.name(), new.server.major()));
    Ok(())
}

/// Refuses an outbox table that logical replication fills: its rows would be sent again.
async fn check_subscriptions(new: &End, tell: Tell<'_>) -> Result<()> {
    if let Some(found) = replicated_outboxes(new).await?.first() {
        let (table, subscription) = (&found.table, &found.subscription);
        let what = format!(
            "subscription {subscription} of {} brings the rows of {table}: the relay would send \
             their events again",
            new.name()
        );
        return Err(refused(what).remedy(format!(
            "leave the table out: on the old server, ALTER PUBLICATION … DROP TABLE {table}; on the \
             new one, ALTER SUBSCRIPTION {subscription} REFRESH PUBLICATION"
        )));
    }
    for found in replicated_own_tables(new).await? {
        tell(&format!(
            "warning: subscription {} brings the rows of {}, which belong to the old server's \
             relay: leave that table out",
            found.subscription, found.table
        ));
    }
    Ok(())
}

/// Warns if services call SQL functions that the new server lacks.
async fn check_functions(ends: &Ends, tell: Tell<'_>) -> Result<()> {
    const EXISTS: &str = "\
        SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                       WHERE n.nspname = 'factlib' AND p.proname = 'emit')";
    if ends.old.value(EXISTS).await? && !ends.new.value::<bool>(EXISTS).await? {
        tell(
            "warning: the new server lacks the SQL functions factlib.emit: services that call them \
             need `factlib setup --sql-functions` there",
        );
    }
    Ok(())
}
