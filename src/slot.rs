//! Operator commands on the replication slot: show, create, drop and advance.
//!
//! A command that could lose facts first asks the caller to accept that, naming the range.

use factlib_postgres::{Server, Slot, SqlSession};
use serde::Serialize;
use slog::Logger;

use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::Checkpoint,
    config::{Config, StoreKind},
    postgres::{Reconnecting, postgres_error, retention::Retention, server, sql_session},
    startup::Startup,
};

/// State of a slot.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SlotReport {
    /// Name.
    pub slot: String,
    /// Output plugin; a relay's slot has `pgoutput`.
    pub plugin: Option<String>,
    /// The database that it reads.
    pub database: Option<String>,
    /// Process ID of the server process that reads it now.
    pub active_pid: Option<i32>,
    /// `wal_status` of `pg_replication_slots`; empty before PostgreSQL 13.
    pub wal_status: String,
    /// Reason why it was invalidated.
    pub lost: Option<String>,
    /// True if standbys that synchronise slots keep a copy of it; none before PostgreSQL 17.
    pub failover: Option<bool>,
    /// Bytes of WAL that the server keeps for it.
    pub retained_bytes: u64,
    /// Bytes of WAL that can still be written before it is invalidated; none without a limit.
    pub safe_wal_bytes: Option<i64>,
    /// Seconds without a reader after which the server invalidates it
    /// (`idle_replication_slot_timeout`); none for never.
    pub idle_timeout_seconds: Option<u64>,
    /// Everything up to here is confirmed, so the server may have forgotten it.
    pub confirmed_lsn: Lsn,
    /// Saved position in the checkpoint store.
    pub checkpoint_lsn: Option<Lsn>,
    /// Reason why a start would refuse it, such as a checkpoint of another cluster.
    pub refusal: Option<String>,
    /// End of the server's WAL.
    pub wal_end_lsn: Lsn,
}

impl SlotReport {
    /// The checkpoint, unless it does not fit the slot.
    fn valid_checkpoint(&self) -> Option<Lsn> {
        self.checkpoint_lsn.filter(|_| self.refusal.is_none())
    }

    /// Position up to which everything is known to be delivered.
    fn delivered(&self) -> Lsn {
        self.confirmed_lsn.max(self.valid_checkpoint().unwrap_or(Lsn::ZERO))
    }
}

/// Looks the slot up; returns none if it does not exist.
///
/// # Errors
/// The server or the checkpoint store can't be queried.
pub async fn show(config: &Config, log: &Logger) -> Result<Option<SlotReport>> {
    Operator::connect(config, log).await?.show().await
}

/// Creates the slot and nothing else. This waits for running transactions that write. A checkpoint
/// that contradicts the slot is reported as `refusal`.
///
/// # Errors
/// The server refuses, for example because the slot exists.
pub async fn create(config: &Config, log: &Logger) -> Result<SlotReport> {
    let operator = Operator::connect(config, log).await?;
    operator.startup.create_slot(&operator.client, &operator.server, &|_| {}, log).await?;
    operator.existing().await
}

/// Drops the slot if `accept` returns true for the sentence that says what this loses. The checkpoint
/// stays, so a start is refused until `setup --accept-position`.
///
/// # Errors
/// [`ErrorKind::Config`] if it was not accepted; an error of the server, such as a slot in use.
pub async fn drop(
    config: &Config,
    accept: impl FnOnce(&str) -> bool,
    log: &Logger,
) -> Result<SlotReport> {
    let operator = Operator::connect(config, log).await?;
    let report = operator.existing().await?;
    let slot = &report.slot;
    let lost = operator.describe_loss(&report, report.wal_end_lsn);
    require_accepted(format!("dropping slot {slot} loses {lost}"), accept)?;
    Slot::drop(&operator.client, slot).await?;
    Ok(report)
}

/// Confirms everything up to `to`, or up to the checkpoint, which loses nothing. If facts would be
/// lost, `accept` has to return true for the sentence that says so. Returns the slot's new position.
///
/// # Errors
/// [`ErrorKind::Config`] if it was not accepted or there is no position to advance to; an error of the
/// server, such as a slot in use.
pub async fn advance(
    config: &Config,
    to: Option<Lsn>,
    accept: impl FnOnce(&str) -> bool,
    log: &Logger,
) -> Result<Lsn> {
    let operator = Operator::connect(config, log).await?;
    let report = operator.existing().await?;
    let slot = &report.slot;
    let Some(to) = to.or(report.valid_checkpoint()) else {
        let why = report.refusal.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let what = format!("there is no checkpoint to advance slot {slot} to{why}");
        return Err(Error::new(ErrorKind::Config, what).remedy("name a position: --to LSN"));
    };
    if to <= report.confirmed_lsn {
        let what = format!("slot {slot} stands at {} already", report.confirmed_lsn);
        return Err(Error::new(ErrorKind::Config, what).remedy("a slot can't go back"));
    }
    if to > report.delivered() {
        let lost = operator.describe_loss(&report, to);
        require_accepted(format!("advancing slot {slot} to {to} loses {lost}"), accept)?;
    }
    Ok(Slot::advance(&operator.client, slot, to).await?)
}

struct Operator<'a> {
    config: &'a Config,
    startup: Startup,
    client: SqlSession,
    server: Server,
    log: &'a Logger,
}

impl<'a> Operator<'a> {
    async fn connect(config: &'a Config, log: &'a Logger) -> Result<Self> {
        config.validate()?;
        let startup = Startup::new(&std::sync::Arc::new(config.clone()))?;
        let limit = config.postgres.connect_timeout;
        let client = sql_session(&startup.info, limit, log).await?;
        let server = Server::read(&client).await?;
        server::check_role(&server, config)?;
        Ok(Operator { config, startup, client, server, log })
    }

    async fn existing(&self) -> Result<SlotReport> {
        let name = &self.config.postgres.slot;
        self.show().await?.ok_or_else(|| {
            let what = format!("slot {name} does not exist");
            Error::new(ErrorKind::PostgresRefused, what)
                .remedy("run `factlib setup`, or correct postgres.slot")
        })
    }

    async fn show(&self) -> Result<Option<SlotReport>> {
        let settings = &self.config.postgres;
        let name = &settings.slot;
        let Some(slot) = Slot::read(&self.client, name).await? else { return Ok(None) };
        let info = self.startup.info.clone();
        let server = Reconnecting::new(info, settings.connect_timeout, self.log.clone());
        let kept = Retention::read(&server, name, u64::MAX).await?.unwrap_or_default();
        let checkpoint = self.checkpoint().await?;
        let refusal = self.refusal(slot.clone(), checkpoint.clone()).await?;
        Ok(Some(SlotReport {
            slot: name.clone(),
            plugin: slot.plugin,
            database: slot.database,
            active_pid: slot.active_pid,
            wal_status: kept.wal_status.clone(),
            lost: slot.lost,
            failover: slot.failover,
            retained_bytes: kept.bytes(),
            safe_wal_bytes: kept.safe_wal_size,
            idle_timeout_seconds: self.server.idle_slot_timeout().map(|limit| limit.as_secs()),
            confirmed_lsn: slot.confirmed,
            checkpoint_lsn: checkpoint.map(|saved| saved.lsn),
            refusal,
            wal_end_lsn: kept.wal_end,
        }))
    }

    async fn refusal(&self, slot: Slot, saved: Option<Checkpoint>) -> Result<Option<String>> {
        let limit = self.config.postgres.connect_timeout;
        let mut replication = self.startup.replication(limit, self.log).await?;
        let store = self.startup.store(self.log);
        let judging =
            self.startup.decide_start(&mut replication, Some(slot), saved, &*store, self.log);
        match judging.await {
            Ok(_) => Ok(None),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        if self.config.checkpoint.store == StoreKind::Postgres {
            let what = "cannot look up the checkpoint table";
            let query = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'checkpoints'
                         AND relnamespace = to_regnamespace('factlib'))";
            let row = self.client.query_one(query, &[]).await;
            let row = row.map_err(|error| postgres_error(what, error))?;
            if !row.try_get::<_, bool>(0).map_err(|error| postgres_error(what, error))? {
                return Ok(None);
            }
        }
        self.startup.store(self.log).load(&self.config.postgres.slot).await
    }

    /// Describes the facts that are lost when everything up to `end` is forgotten.
    fn describe_loss(&self, report: &SlotReport, end: Lsn) -> String {
        let from = report.delivered();
        let bytes = bytesize::ByteSize::b(end.distance_from(from));
        let prefix = &self.config.postgres.message_prefix;
        match self.config.outbox_tables().is_empty() {
            true => format!("facts ({prefix}) of the {bytes} of WAL from {from} to {end}"),
            false => format!("the outbox rows of the {bytes} of WAL from {from} to {end}"),
        }
    }
}

fn require_accepted(what: String, accept: impl FnOnce(&str) -> bool) -> Result<()> {
    if accept(&what) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, what).remedy("repeat with --yes if that is accepted"))
}
