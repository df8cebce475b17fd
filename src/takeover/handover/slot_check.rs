//! Refuses a slot that can't be taken over, and decides where to read it from.

use std::time::Duration;

use factlib_postgres::{ReplicationClient, Slot, SqlSession};
use slog::Logger;
use tokio::time::{Instant, sleep};

use crate::{
    Error, ErrorKind, Result,
    checkpoint::Checkpoint,
    config::{Config, StoreKind},
    postgres::{postgres_error, slot_reader::SlotReader},
    startup::Startup,
};

/// Time within which PostgreSQL notices the end of a relay that was killed on a host that lives.
const FREE_LIMIT: Duration = Duration::from_secs(5);
const FREE_PAUSE: Duration = Duration::from_millis(50);

/// Looks the slot up, once nobody reads it or the other relay's slot.
///
/// # Errors
/// [`ErrorKind::SlotInUse`] if one is read; others if the slot is not there, or another plugin's.
pub(super) async fn free_slot(
    client: &SqlSession,
    config: &Config,
    other_slot: Option<&str>,
    database: &str,
) -> Result<Slot> {
    let name = &config.postgres.slot;
    let refused = |what: String| Error::new(ErrorKind::PostgresRefused, what);
    wait_until_free(client, name).await?;
    if let Some(other) = other_slot {
        wait_until_free(client, other).await?;
    }
    let Some(slot) = Slot::read(client, name).await? else {
        return Err(refused(format!("slot {name} does not exist")).remedy(
            "name Debezium's slot with postgres.slot; if slot.drop.on.stop = true has dropped it, \
             start with `factlib setup` and look for what is lost with `factlib audit`",
        ));
    };
    if let Some(plugin) = slot.plugin.as_deref()
        && plugin != "pgoutput"
    {
        return Err(refused(format!("slot {name} has the plugin {plugin}, and not pgoutput"))
            .remedy(
                "while Debezium runs, create another slot (postgres.slot, `factlib setup`); then stop \
                 Debezium, and take over that slot: what Debezium has sent since is not sent again",
            ));
    }
    if let Some(other) = slot.database.as_deref()
        && other != database
    {
        let what = format!("slot {name} is one of database {other}, and not of {database}");
        return Err(refused(what).remedy("correct postgres.url"));
    }
    Ok(slot)
}

/// Waits until nobody reads the slot: PostgreSQL takes a moment to notice the end of a relay.
async fn wait_until_free(client: &SqlSession, slot: &str) -> Result<()> {
    let began = Instant::now();
    while let Some(reader) = SlotReader::of(client, slot).await? {
        if began.elapsed() > FREE_LIMIT {
            return Err(reader.in_use(slot).remedy(
                "the relay that reads it still runs: stop the connector (PUT \
                 /connectors/NAME/stop) or Debezium Server, and run this again",
            ));
        }
        sleep(FREE_PAUSE).await;
    }
    Ok(())
}

/// Returns the position from which on events may be missing in the topics: that of the slot, or of an
/// earlier takeover.
pub(super) async fn start(
    startup: &Startup,
    replication: &mut ReplicationClient,
    client: &SqlSession,
    slot: Slot,
    config: &Config,
    log: &Logger,
) -> Result<Checkpoint> {
    let store = startup.store(log);
    let saved = match config.checkpoint.store == StoreKind::Postgres && !has_table(client).await? {
        true => None,
        false => store.load(&config.postgres.slot).await?,
    };
    let system = replication.identify_system().await?;
    // Behind the slot it is of an earlier time, before the other relay went on.
    let saved =
        saved.filter(|saved| saved.system_id == system.system_id && saved.lsn >= slot.confirmed);
    startup.decide_start(replication, Some(slot), saved, &*store, log).await
}

async fn has_table(client: &SqlSession) -> Result<bool> {
    let query = "SELECT to_regclass('factlib.checkpoints') IS NOT NULL";
    let failed = |error| postgres_error("cannot look up the checkpoint table", error);
    let row = client.query_one(query, &[]).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}
