//! What has to be there before anything is read, and where reading starts.
//!
//! The checkpoint is held against the slot and the server: where they contradict
//! each other, events may be missing, and only a person can accept that.

use std::{fmt, sync::Arc, time::Duration};

use postgres_protocol::escape::escape_literal;
use slog::{Logger, info};
use tokio_postgres::Client;

use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::{
        CREATE_TABLE, Checkpoint, CheckpointStore, FileStore, MemoryStore, PostgresStore,
    },
    config::{Config, RefusalPolicy, StoreKind},
    dead_letter::{self, DeadLetterTable},
    postgres::{
        ConnectInfo,
        replication::{ReplicationClient, SystemId},
        slot::{Server, Slot, create_publication, publication_exists, publication_sql},
        sql,
    },
};

/// How to accept that events may be missing.
const ACCEPT: &str =
    "if that is accepted, `factlib setup --accept-position` starts from the slot as it is now";

/// The way to the server, and what is expected there.
pub(crate) struct Startup {
    pub info: ConnectInfo,
    config: Arc<Config>,
}

/// Where a generation starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub from: Checkpoint,
    pub status_interval: Duration,
}

/// What [`setup`] found or made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetupReport {
    /// The publication had to be created.
    pub publication_created: bool,
    /// The slot had to be created.
    pub slot_created: bool,
    /// Where reading starts.
    pub start: Lsn,
    publication: String,
    slot: String,
    store: String,
}

impl fmt::Display for SetupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = |made| if made { "created" } else { "was there" };
        writeln!(f, "publication {}: {}", self.publication, made(self.publication_created))?;
        writeln!(f, "slot {}: {}", self.slot, made(self.slot_created))?;
        writeln!(f, "checkpoint store: {}", self.store)?;
        write!(f, "reading starts at {}", self.start)
    }
}

/// Creates what is missing of publication, slot and checkpoint table, and checks
/// that the relay can start. With `accept_position`, a checkpoint and a slot that
/// can't be used are given up, and reading starts at the slot's own position.
///
/// # Errors
/// What the server refuses, with the remedy; nothing is retried.
pub async fn setup(config: &Config, accept_position: bool, log: &Logger) -> Result<SetupReport> {
    config.validate()?;
    let startup = Startup::new(&Arc::new(config.clone()))?;
    let store = startup.store(log);
    let limit = config.postgres.connect_timeout;
    let client = sql::connect(&startup.info, limit, log).await?;
    let name = &config.postgres.slot;
    if accept_position {
        store.create().await?;
        store.remove(name).await?;
        let slot = Slot::read(&client, name).await?;
        if slot.is_some_and(|slot| slot.lost.is_some()) {
            Slot::drop(&client, name).await?;
        }
    }
    if config.dead_letter.policy == RefusalPolicy::DeadLetter {
        startup.dead_letter_table(log).create().await?;
    }
    let publication_created = !publication_exists(&client, &config.postgres.publication).await?;
    let slot_created = Slot::read(&client, name).await?.is_none();
    let start = startup.prepare_with(&client, &*store, true, limit, log).await?;
    Ok(SetupReport {
        publication_created,
        slot_created,
        start: start.from.lsn,
        publication: config.postgres.publication.clone(),
        slot: name.clone(),
        store: store.describe(),
    })
}

/// The statements that [`setup`] would run, for an administrator to run.
pub fn setup_sql(config: &Config) -> String {
    let slot = escape_literal(&config.postgres.slot);
    let mut sql = format!(
        "{};\nSELECT pg_create_logical_replication_slot({}, 'pgoutput');\n",
        publication_sql(&config.postgres.publication),
        slot.trim_start(),
    );
    if config.checkpoint.store == StoreKind::Postgres {
        sql.push_str(CREATE_TABLE);
    }
    if config.dead_letter.policy == RefusalPolicy::DeadLetter {
        sql.push_str(dead_letter::CREATE_TABLE);
    }
    sql
}

impl Startup {
    pub fn new(config: &Arc<Config>) -> Result<Self> {
        let info = config.postgres.connect_info()?;
        Ok(Startup { info, config: Arc::clone(config) })
    }

    /// The store that the configuration names.
    pub fn store(&self, log: &Logger) -> Arc<dyn CheckpointStore> {
        let settings = &self.config.checkpoint;
        match settings.store {
            StoreKind::File => Arc::new(FileStore::new(&settings.path)),
            StoreKind::Memory => Arc::new(MemoryStore::default()),
            StoreKind::Postgres => {
                let timeout = self.config.postgres.connect_timeout;
                Arc::new(PostgresStore::new(self.info.clone(), timeout, log.clone()))
            }
        }
    }

    /// Where dead letters go that no topic takes.
    pub fn dead_letter_table(&self, log: &Logger) -> DeadLetterTable {
        let settings = &self.config.postgres;
        let (info, log) = (self.info.clone(), log.clone());
        let (create, timeout) = (settings.create, settings.connect_timeout);
        DeadLetterTable::new(settings.slot.clone(), create, info, timeout, log)
    }

    /// Checks the server, creates what is missing if that is wanted, and finds the
    /// position. One attempt to connect takes no longer than `limit`.
    pub async fn prepare(
        &self,
        store: &dyn CheckpointStore,
        limit: Duration,
        log: &Logger,
    ) -> Result<Start> {
        let client = sql::connect(&self.info, limit, log).await?;
        self.prepare_with(&client, store, self.config.postgres.create, limit, log).await
    }

    async fn prepare_with(
        &self,
        client: &Client,
        store: &dyn CheckpointStore,
        create: bool,
        limit: Duration,
        log: &Logger,
    ) -> Result<Start> {
        let settings = &self.config.postgres;
        let server = Server::read(client).await?;
        server.check()?;
        let system = self.identify(limit, log).await?;
        if create {
            store.create().await?;
        }
        self.publication(client, create, log).await?;
        let checkpoint = store.load(&settings.slot).await?;
        let slot = match Slot::read(client, &settings.slot).await? {
            None if create && checkpoint.is_none() => {
                info!(log, "creating the slot, which waits for running transactions to end";
                    "slot" => &settings.slot);
                Some(Slot::create(client, &settings.slot, self.info.dbname()).await?)
            }
            slot => slot,
        };
        let position = Position {
            slot_name: &settings.slot,
            database: self.info.dbname(),
            store: store.describe(),
            system,
        };
        let from = position.decide(slot, checkpoint)?;
        // A third: one report may be lost in a pause, and the next still comes in time.
        let limit = server.wal_sender_timeout.map_or(Duration::MAX, |timeout| timeout / 3);
        Ok(Start { from, status_interval: settings.status_interval.min(limit) })
    }

    async fn identify(&self, limit: Duration, log: &Logger) -> Result<SystemId> {
        let mut client = ReplicationClient::connect(&self.info, limit, log).await?;
        client.identify_system().await
    }

    async fn publication(&self, client: &Client, create: bool, log: &Logger) -> Result<()> {
        let name = &self.config.postgres.publication;
        if publication_exists(client, name).await? {
            return Ok(());
        }
        if !create {
            let what = format!("publication {name} does not exist");
            let remedy = format!("run `factlib setup`, or {}", publication_sql(name));
            return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy));
        }
        create_publication(client, name).await?;
        info!(log, "publication created"; "publication" => name);
        Ok(())
    }
}

/// What a position is judged by.
struct Position<'a> {
    slot_name: &'a str,
    database: &'a str,
    store: String,
    system: SystemId,
}

impl Position<'_> {
    /// Where to start, or why that is for a person to say.
    fn decide(&self, slot: Option<Slot>, checkpoint: Option<Checkpoint>) -> Result<Checkpoint> {
        let name = self.slot_name;
        let refused = |what: String| Error::new(ErrorKind::PostgresRefused, what);
        let lost = |what: String| Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT);
        // Before all else: what is not found in another cluster has not been lost there.
        if let Some(checkpoint) = &checkpoint
            && checkpoint.system_id != self.system.system_id
        {
            return Err(lost(format!(
                "{} belongs to the cluster {}, and this is {}: positions of one mean nothing in the other",
                self.store, checkpoint.system_id, self.system.system_id
            )));
        }
        let Some(slot) = slot else {
            return Err(match checkpoint {
                None => refused(format!("slot {name} does not exist"))
                    .remedy("run `factlib setup`, or set postgres.create = true"),
                Some(checkpoint) => lost(format!(
                    "slot {name} is gone, though {} says that it was read up to {}: \
                     facts committed since then are missing",
                    self.store, checkpoint.lsn
                )),
            });
        };
        match (&slot.plugin, &slot.database) {
            (Some(plugin), Some(database)) if plugin == "pgoutput" && database == self.database => {
            }
            (plugin, database) => {
                return Err(refused(format!(
                    "slot {name} belongs to plugin {} and database {}, not to pgoutput and {}",
                    plugin.as_deref().unwrap_or("none"),
                    database.as_deref().unwrap_or("none"),
                    self.database
                ))
                .remedy("name another slot with postgres.slot"));
            }
        }
        if let Some(reason) = slot.lost {
            return Err(lost(format!(
                "slot {name} was invalidated ({reason}): facts committed after {} are missing",
                slot.confirmed
            )));
        }
        let here = Checkpoint {
            slot: name.to_owned(),
            system_id: self.system.system_id,
            timeline: self.system.timeline,
            lsn: slot.confirmed,
        };
        let Some(checkpoint) = checkpoint else { return Ok(here) };
        if slot.confirmed > checkpoint.lsn {
            return Err(lost(format!(
                "slot {name} stands at {}, beyond {}, up to which facts are known to be delivered \
                 ({}): it was recreated or advanced by someone else, and facts in between are missing",
                slot.confirmed, checkpoint.lsn, self.store
            )));
        }
        if checkpoint.lsn > self.system.wal_end {
            return Err(lost(format!(
                "the server's WAL ends at {}, before {}, up to which facts were delivered ({}): \
                 was it restored from a backup?",
                self.system.wal_end, checkpoint.lsn, self.store
            )));
        }
        Ok(Checkpoint { lsn: checkpoint.lsn, ..here })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position<'static> {
        let dbname = "shop".to_owned();
        let system = SystemId { system_id: 7, timeline: 1, wal_end: Lsn::new(1_000), dbname };
        Position { slot_name: "s", database: "shop", store: "memory".into(), system }
    }

    fn slot(confirmed: u64) -> Option<Slot> {
        let (plugin, database) = (Some("pgoutput".into()), Some("shop".into()));
        Some(Slot { plugin, database, confirmed: Lsn::new(confirmed), lost: None })
    }

    fn checkpoint(lsn: u64) -> Option<Checkpoint> {
        Some(Checkpoint { slot: "s".into(), system_id: 7, timeline: 1, lsn: Lsn::new(lsn) })
    }

    #[test]
    fn reading_starts_at_the_checkpoint_or_else_at_the_slot() {
        let start = |slot, checkpoint| position().decide(slot, checkpoint).map(|c| c.lsn.as_u64());
        assert_eq!(start(slot(500), checkpoint(600)).expect("a start"), 600);
        assert_eq!(start(slot(500), checkpoint(500)).expect("a start"), 500);
        assert_eq!(start(slot(500), None).expect("a start"), 500);
    }

    #[test]
    fn a_position_that_facts_may_be_missing_from_is_refused_with_the_way_to_accept_it() {
        let foreign = checkpoint(600).map(|c| Checkpoint { system_id: 8, ..c });
        let invalidated = slot(500).map(|s| Slot { lost: Some("wal_removed".into()), ..s });
        for (slot, checkpoint, why) in [
            (None, checkpoint(600), "is gone"),
            (invalidated, checkpoint(600), "wal_removed"),
            (slot(700), checkpoint(600), "recreated or advanced"),
            (slot(500), checkpoint(1_001), "restored"),
            (slot(500), foreign.clone(), "cluster 8"),
            (None, foreign, "cluster 8"),
        ] {
            let error = position().decide(slot, checkpoint).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PositionLost);
            let text = error.to_string();
            assert!(text.contains(why) && text.contains("--accept-position"), "{text}");
        }
    }

    #[test]
    fn a_slot_of_another_plugin_or_database_is_refused() {
        let other = slot(1).map(|s| Slot { plugin: Some("wal2json".into()), ..s });
        assert_eq!(position().decide(other, None).unwrap_err().kind(), ErrorKind::PostgresRefused);
        let other = slot(1).map(|s| Slot { database: Some("other".into()), ..s });
        assert_eq!(position().decide(other, None).unwrap_err().kind(), ErrorKind::PostgresRefused);
    }
}
