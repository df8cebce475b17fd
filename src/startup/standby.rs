//! Reading from a standby: what is written goes to its primary, and positions name the timeline of the
//! moment.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use factlib_postgres::{ConnectInfo, SqlSession, WaitsFor};
use slog::{Logger, info, warn};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Row, types::PgLsn};

use super::Startup;
use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::{Checkpoint, CheckpointStore},
    config::StoreKind,
    outbox::{Finding, publication::RefuseOn},
    postgres::{Reconnecting, postgres_error, sql_session},
};

/// Pause between two requests to the primary, and between two looks at the standby.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause between two looks at whether a position has reached the standby, while reading goes on.
const REPLAY_PAUSE: Duration = Duration::from_millis(20);

/// Asks the primary again and again to record its running transactions: a slot on a standby is
/// created once it has seen such records, and an idle primary writes none by itself.
pub(super) async fn log_snapshots(
    startup: &Startup,
    on_wait: &(dyn Fn(&WaitsFor) + Sync),
    log: &Logger,
) -> Infallible {
    let limit = startup.config.postgres.connect_timeout;
    let primary = Reconnecting::new(startup.writing_info.clone(), limit, log.clone());
    let mut said = false;
    loop {
        let asked = primary.run("SELECT pg_log_standby_snapshot()", &[]).await;
        if let (Err(error), false) = (asked, said) {
            let waits_for = WaitsFor::PrimarySnapshot;
            warn!(log, "creating the slot waits for the primary, which can't be asked";
                "waits_for" => %waits_for, "remedy" => waits_for.remedy(), "error" => %error);
            on_wait(&waits_for);
            said = true;
        }
        sleep(PAUSE).await;
    }
}

/// Checks and creates the publication on the primary, and waits until the standby has it.
pub(super) async fn publication(
    startup: &Startup,
    standby: &SqlSession,
    create: bool,
    refuse: RefuseOn,
    limit: Duration,
    log: &Logger,
) -> Result<(bool, Vec<Finding>)> {
    let primary = sql_session(&startup.writing_info, limit, log).await?;
    let publishing = startup.publication(&primary, create, refuse, log);
    let published = startup.answered(&primary, "for the publication", publishing).await?;
    let end = lsn(&primary, "SELECT pg_current_wal_lsn()").await?;
    let deadline = Instant::now() + limit;
    loop {
        let replayed = lsn(standby, "SELECT pg_last_wal_replay_lsn()").await?;
        if replayed >= end {
            return Ok(published);
        }
        if Instant::now() > deadline {
            let what = format!(
                "the standby has replayed the WAL up to {replayed}, and the primary's ends at {end}"
            );
            return Err(Error::new(ErrorKind::PostgresUnavailable, what)
                .remedy("is it a standby of the primary in postgres.primary_url, and connected?"));
        }
        sleep(PAUSE).await;
    }
}

async fn lsn(client: &SqlSession, query: &str) -> Result<Lsn> {
    let failed = |error| postgres_error("cannot read where the WAL ends", error);
    let row = client.query_one(query, &[]).await.map_err(failed)?;
    Ok(row.try_get::<_, Option<PgLsn>>(0).map_err(failed)?.map_or(Lsn::ZERO, Lsn::from))
}

/// Stores positions under the timeline that the server is on, and returns only when a promotion of the
/// standby would not lose them again.
///
/// A replication connection to a standby goes on when the standby is promoted. A position that was
/// saved under the timeline of the start would then look as if it came from another server; and one
/// that is in the primary's table alone would be missing, while the standby's slot has confirmed it.
pub(crate) struct StandbyPositions {
    store: Arc<dyn CheckpointStore>,
    standby: Reconnecting,
    /// None if the store is not in the database.
    primary: Option<Reconnecting>,
    /// Timeline of the last save.
    timeline: AtomicU32,
    log: Logger,
}

impl StandbyPositions {
    // A position that was read before this answer is in the history of that timeline.
    const TIMELINE: &str = "\
        SELECT CASE WHEN in_recovery
               THEN (SELECT received_tli FROM pg_stat_wal_receiver)
               ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
               in_recovery
        FROM pg_is_in_recovery() AS in_recovery";
    const REPLAYED: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END";

    pub fn new(store: Arc<dyn CheckpointStore>, startup: &Startup, log: &Logger) -> Self {
        let limit = startup.config.postgres.connect_timeout;
        let server = |info: &ConnectInfo| Reconnecting::new(info.clone(), limit, log.clone());
        let in_database = startup.config.checkpoint.store == StoreKind::Postgres;
        StandbyPositions {
            store,
            standby: server(&startup.info),
            primary: in_database.then(|| server(&startup.writing_info)),
            timeline: AtomicU32::new(0),
            log: log.clone(),
        }
    }

    /// Returns the timeline, if it is visible to us, and whether the server is a standby.
    async fn timeline(&self) -> Result<(Option<u32>, bool)> {
        let row = ask(&self.standby, Self::TIMELINE).await?;
        let read = || -> Result<_, tokio_postgres::Error> {
            let timeline: Option<i32> = row.try_get(0)?;
            Ok((timeline.and_then(|timeline| timeline.try_into().ok()), row.try_get(1)?))
        };
        read().map_err(|error| unanswered(&self.standby).caused_by(error))
    }

    /// Waits until the standby has what was just saved on the primary.
    async fn replicated(&self, primary: &Reconnecting) -> Result<()> {
        let saved = wal_position(primary, "SELECT pg_current_wal_lsn()").await?;
        loop {
            let replayed = wal_position(&self.standby, Self::REPLAYED).await?;
            if replayed.is_none() {
                let what = "the standby was promoted while a position was saved on its primary";
                return Err(Error::new(ErrorKind::CheckpointUnavailable, what));
            }
            if replayed >= saved {
                return Ok(());
            }
            sleep(REPLAY_PAUSE).await;
        }
    }
}

async fn wal_position(server: &Reconnecting, query: &str) -> Result<Option<PgLsn>> {
    let row = ask(server, query).await?;
    row.try_get(0).map_err(|error| unanswered(server).caused_by(error))
}

/// Returns the only row of the answer to a question about a server's WAL.
async fn ask(server: &Reconnecting, query: &str) -> Result<Row> {
    let rows = server.run(query, &[]).await;
    let rows = rows.map_err(|error| unanswered(server).caused_by(error))?;
    rows.into_iter().next().ok_or_else(|| unanswered(server))
}

fn unanswered(server: &Reconnecting) -> Error {
    let what = format!("cannot ask {} about its WAL", server.describe());
    Error::new(ErrorKind::CheckpointUnavailable, what)
}

#[async_trait]
impl CheckpointStore for StandbyPositions {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        self.store.load(slot).await
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (timeline, is_standby) = self.timeline().await?;
        let timeline = timeline.unwrap_or(0).max(checkpoint.timeline);
        if timeline > checkpoint.timeline && self.timeline.load(Relaxed) != timeline {
            info!(self.log, "the standby is on a later timeline: was it promoted?";
                "timeline" => timeline, "read_from" => checkpoint.timeline);
            // It may not have what was saved last on its former primary.
            self.store.load(&checkpoint.slot).await?;
        }
        self.store.save(&Checkpoint { timeline, ..checkpoint.clone() }).await?;
        self.timeline.store(timeline, Relaxed);
        match &self.primary {
            Some(primary) if is_standby => self.replicated(primary).await,
            _ => Ok(()),
        }
    }

    async fn create(&self) -> Result<()> {
        self.store.create().await
    }

    async fn remove(&self, slot: &str) -> Result<()> {
        self.store.remove(slot).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}
