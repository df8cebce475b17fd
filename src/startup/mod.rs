//! What has to be there before anything is read, and where reading starts.
//!
//! The checkpoint is held against the slot and the server: where they contradict
//! each other, events may be missing, and only a person can accept that.

mod kafka;
mod other_relays;
mod position;
mod slot_claim;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib_postgres::{
    ConnectInfo, Encoding, ReplicationClient, Server, SilenceLimit, Slot, SqlSession, SystemId,
    TimelineHistory, WaitsFor, publication,
};
use postgres_protocol::escape::escape_literal;
use slog::{Logger, error, info, warn};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    kafka::InKafka,
    other_relays::{ONE_SLOT, other_relays},
    slot_claim::SlotClaim,
};
use self::{
    other_relays::reader_name,
    position::{ACCEPT, Position, check_owner, not_ready},
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::{
        CREATE_TABLE, Checkpoint, CheckpointStore, FileStore, MemoryStore, Partial, PostgresStore,
    },
    config::{Config, OutboxTable, RefusalPolicy, StoreKind},
    dead_letter::{self, DeadLetterTable},
    outbox::{
        self, Finding, Severity,
        publication::{PublicationSpec, RefuseOn},
    },
    postgres::{
        logged, postgres_error, read_encoding, server, slot_reader::END_LIMIT,
        slot_reader::OwnBackend, slot_reader::SlotReader, sql_session,
    },
};

/// The way to the server, and what is expected there.
pub(crate) struct Startup {
    pub info: ConnectInfo,
    /// `info` for replication, with an `application_name` that says what we read.
    pub replication_info: ConnectInfo,
    /// Cancelled once nobody waits for a start any more: ends steps that have no time limit.
    pub stop: CancellationToken,
    config: Arc<Config>,
    /// A slot is being created now.
    creating: AtomicBool,
    silence_limit: Arc<SilenceLimit>,
    own_backend: Arc<OwnBackend>,
}

/// Where a generation starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub from: Checkpoint,
    /// The first events of the transaction behind it need not be sent any more.
    pub partial: Option<Partial>,
    /// Where the server's WAL ended when it was asked.
    pub wal_end: Lsn,
    pub status_interval: Duration,
    /// Encoding of the texts in the stream.
    pub encoding: Encoding,
    /// For each outbox table, true if it is partitioned.
    pub partitioned: Vec<bool>,
}

/// What may be done to get there.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// What is missing is created.
    create: bool,
    /// The checkpoint does not count, and a slot that is lost gives way to a new one.
    accept: bool,
    /// The cluster that this process has read so far.
    cluster: Option<u64>,
    /// A person is there: whatever is wrong with what is published is refused.
    attended: bool,
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
    let client = sql_session(&startup.info, limit, log).await?;
    let name = &config.postgres.slot;
    let publication_created = !publication::exists(&client, &config.postgres.publication).await?;
    let slot_created = Slot::read(&client, name).await?.is_none();
    let wanted = Wanted { create: true, accept: accept_position, cluster: None, attended: true };
    let start = startup.prepare_with(&client, &*store, wanted, limit, &|_| {}, log).await?;
    if config.dead_letter.policy == RefusalPolicy::DeadLetter {
        startup.dead_letter_table(log).create().await?;
    }
    if accept_position {
        // Last: what fails before leaves the refusal in force.
        if startup.config.is_exactly_once() {
            kafka::forget(&startup.config, start.from.system_id, log).await?;
        }
        store.remove(name).await?;
    }
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
        published(config, &config.outbox_tables()).create_sql(),
        slot.trim_start(),
    );
    if config.checkpoint.store == StoreKind::Postgres {
        sql.push_str(CREATE_TABLE);
    }
    if config.dead_letter.policy == RefusalPolicy::DeadLetter {
        sql.push_str(dead_letter::CREATE_TABLES);
    }
    sql
}

/// The publication that these tables need.
pub(crate) fn published<'a>(config: &'a Config, tables: &'a [OutboxTable]) -> PublicationSpec<'a> {
    let settings = &config.postgres;
    let accept_row_filter = settings.accept_row_filter;
    PublicationSpec { publication: &settings.publication, tables, accept_row_filter }
}

impl Startup {
    pub fn new(config: &Arc<Config>) -> Result<Self> {
        let info = config.postgres.connect_info()?;
        let replication_info = info.clone().with_default_application_name(reader_name(config));
        let (stop, creating) = (CancellationToken::new(), AtomicBool::new(false));
        let silence_limit = Arc::new(SilenceLimit::new(config.postgres.wal_receiver_timeout));
        let (config, own_backend) = (Arc::clone(config), Arc::default());
        Ok(Startup { info, replication_info, stop, config, creating, silence_limit, own_backend })
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
    /// position. One attempt to connect takes no longer than `limit`. With `cluster`, no
    /// other one is taken for it without a checkpoint that says so. Creating the slot takes as
    /// long as transactions of others; what it waits for is told.
    pub async fn prepare(
        &self,
        store: &dyn CheckpointStore,
        cluster: Option<u64>,
        limit: Duration,
        tell: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Start> {
        let client = sql_session(&self.info, limit, log).await?;
        let create = self.config.postgres.create;
        let wanted = Wanted { create, accept: false, cluster, attended: false };
        let start = self.prepare_with(&client, store, wanted, limit, tell, log).await?;
        self.slot_is_free(&client, log).await?;
        // Once in a process: it is no failure, and goes on as long as both do.
        if cluster.is_none() {
            self.warn_of_others(&client, log).await;
        }
        Ok(start)
    }

    /// The limit for a server's silence.
    pub fn silence_limit(&self) -> Arc<SilenceLimit> {
        Arc::clone(&self.silence_limit)
    }

    /// The server process that reads the slot for us, or did.
    pub fn own_backend(&self) -> Arc<OwnBackend> {
        Arc::clone(&self.own_backend)
    }

    /// Refuses a slot that somebody reads; a reader of our own that is left over is ended.
    async fn slot_is_free(&self, client: &SqlSession, log: &Logger) -> Result<()> {
        // Asked for, because an attempt to read would be an error in the server's log each time.
        let slot = &self.config.postgres.slot;
        let reading = SlotReader::of(client, slot);
        match self.answered(client, "who reads the slot", reading).await? {
            None => Ok(()),
            Some(reader) if self.own_backend.is(&reader.backend) => {
                // It takes as long as the process takes to end, beside the questions.
                let limit = self.config.postgres.connect_timeout + END_LIMIT;
                let ending = reader.end(client, slot, log);
                let ended = client.within(limit, ending).await;
                ended.unwrap_or_else(|given_up| Err(reader.in_use(slot).caused_by(given_up)))
            }
            Some(reader) => Err(reader.in_use(slot)),
        }
    }

    /// Warns of relays that send the same events.
    async fn warn_of_others(&self, client: &SqlSession, log: &Logger) {
        let asking = other_relays(client, &self.config);
        match self.answered(client, "for other relays", asking).await {
            Ok(others) => {
                for other in others {
                    warn!(log, "another relay sends the same events, so each is sent twice";
                        "slot" => &other.slot, "pid" => other.pid, "from" => &other.from,
                        "remedy" => ONE_SLOT);
                }
            }
            Err(error) => warn!(log, "other relays are not looked for"; "error" => %error),
        }
    }

    /// The answer to a question, within `postgres.connect_timeout`: a lock or a network that
    /// swallows it would otherwise be waited for in silence.
    async fn answered<T, E: Into<Error>>(
        &self,
        client: &SqlSession,
        question: &str,
        asking: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        let limit = self.config.postgres.connect_timeout;
        let answer = client.within(limit, asking).await.map_err(|given_up| {
            let what = format!("PostgreSQL at {} does not answer {question}", self.info.describe());
            let remedy = given_up.remedy();
            Error::new(ErrorKind::PostgresUnavailable, what).remedy(remedy).caused_by(given_up)
        })?;
        answer.map_err(Into::into)
    }

    /// Creates the slot, which waits for the transactions that write now.
    pub async fn create_slot(
        &self,
        client: &SqlSession,
        tell: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Slot> {
        let name = &self.config.postgres.slot;
        info!(log, "creating the slot, which waits for running transactions to end";
            "slot" => name);
        let creating = Slot::create(client, name, self.info.dbname());
        self.creating.store(true, Relaxed);
        let created = client.run_watched(creating, &self.stop, |waits_for| {
            warn!(log, "creating the slot waits for a transaction"; "slot" => name,
                "waits_for" => %waits_for, "remedy" => waits_for.remedy());
            tell(waits_for);
        });
        let created = created.await;
        self.creating.store(false, Relaxed);
        let created = created.ok_or_else(|| {
            let what = format!("creating slot {name} was given up, because the relay stops");
            Error::new(ErrorKind::PostgresUnavailable, what)
        })?;
        Ok(created?)
    }

    /// A slot is being created: a stop has to wait until that is cancelled.
    pub fn is_creating(&self) -> bool {
        self.creating.load(Relaxed)
    }

    /// Refuses a slot that somebody creates at this moment: it has no position yet.
    async fn check_ready(&self, client: &SqlSession, slot: &Slot) -> Result<()> {
        if slot.is_ready() {
            return Ok(());
        }
        let name = &self.config.postgres.slot;
        let Some(pid) = slot.active_pid else { return Err(not_ready(slot, name)) };
        let asking = async {
            let answer = WaitsFor::ask(client, pid).await;
            answer.map_err(|error| postgres_error(format!("cannot look up slot {name}"), error))
        };
        let waits_for = self.answered(client, "what the slot waits for", asking).await?;
        let error = not_ready(slot, name);
        Err(match waits_for {
            Some(waits_for) => {
                error.caused_by(format!("it waits for {waits_for}")).remedy(waits_for.remedy())
            }
            None => error,
        })
    }

    async fn prepare_with(
        &self,
        client: &SqlSession,
        store: &dyn CheckpointStore,
        wanted: Wanted,
        limit: Duration,
        tell: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Start> {
        let Wanted { create, accept, cluster, attended } = wanted;
        let settings = &self.config.postgres;
        let server = self.answered(client, "what it is", Server::read(client)).await?;
        let tables = self.config.outbox_tables();
        server::check(&server, tables.is_empty())?;
        let encoding =
            self.answered(client, "in which encoding it is", read_encoding(client, log)).await?;
        let mut replication = self.replication(limit, log).await?;
        let system = replication.identify_system().await?;
        // Before anything is made in a cluster that may be the wrong one.
        if let Some(cluster) = cluster.filter(|cluster| *cluster != system.system_id) {
            vouched(store, &settings.slot, cluster, &system).await?;
        }
        let reading = Slot::read(client, &settings.slot);
        if let Some(slot) = self.answered(client, "for the slot", reading).await? {
            check_owner(&settings.slot, self.info.dbname(), &slot)?;
            self.check_ready(client, &slot).await?;
        }
        let refuse = match cluster {
            _ if attended => RefuseOn::AnyFinding,
            Some(_) => RefuseOn::Nothing,
            // A store that can't be read says why further below.
            None if tables.len() > 1 && matches!(store.load(&settings.slot).await, Ok(Some(_))) => {
                RefuseOn::EveryTable
            }
            None => RefuseOn::AnyFinding,
        };
        let publishing = self.publication(client, create, refuse, log);
        let (publication_created, findings) =
            self.answered(client, "for the publication", publishing).await?;
        if attended {
            // Of a pipeline, the watcher tells.
            log_findings(&findings, log);
        }
        if create {
            store.create().await?;
        }
        let partitioned = outbox::partitioned(client, &tables);
        let partitioned = self.answered(client, "for the outbox tables", partitioned).await?;
        // In this order: another instance may be moving them at this moment, and it moves
        // the WAL first, then the checkpoint, then the slot.
        let reading = Slot::read(client, &settings.slot);
        let mut slot = self.answered(client, "for the slot", reading).await?;
        if let Some(slot) = &slot {
            self.check_ready(client, slot).await?;
        }
        let checkpoint = match accept {
            true => None,
            false => store.load(&settings.slot).await?,
        };
        let position = self.position(&mut replication, checkpoint.as_ref(), store, log).await?;
        if publication_created && slot.is_some() && !server.applies_publications_retroactively() {
            warn!(log, "the slot is older than the publication: a change to a table in between \
                stops the reading"; "slot" => &settings.slot,
                "publication" => &settings.publication,
                "remedy" => "if that happens, its error says how to start from a new slot");
        }
        if accept && let Some(mut lost) = slot.take_if(|slot| slot.lost.is_some()) {
            // Somebody else's slot stays.
            lost.lost = None;
            position.decide(Some(lost), None)?;
            Slot::drop(client, &settings.slot).await?;
        }
        let slot = match slot {
            None if create && checkpoint.is_none() => {
                Some(self.create_slot(client, tell, log).await?)
            }
            slot => slot,
        };
        let wal_end = position.system.wal_end;
        let from = position.decide(slot, checkpoint)?;
        let status_interval = server::status_interval(&server, settings);
        Ok(Start { from, partial: None, wal_end, status_interval, encoding, partitioned })
    }

    /// Where reading would start from this slot and this checkpoint; changes nothing.
    pub async fn judge(
        &self,
        replication: &mut ReplicationClient,
        slot: Option<Slot>,
        checkpoint: Option<Checkpoint>,
        store: &dyn CheckpointStore,
        log: &Logger,
    ) -> Result<Checkpoint> {
        let position = self.position(replication, checkpoint.as_ref(), store, log).await?;
        position.decide(slot, checkpoint)
    }

    /// What the slot and the checkpoint are judged by.
    async fn position(
        &self,
        replication: &mut ReplicationClient,
        checkpoint: Option<&Checkpoint>,
        store: &dyn CheckpointStore,
        log: &Logger,
    ) -> Result<Position<'_>> {
        let system = replication.identify_system().await?;
        let history = match checkpoint {
            Some(saved) => history(replication, saved, &system, log).await?,
            None => None,
        };
        Ok(Position {
            slot_name: &self.config.postgres.slot,
            database: self.info.dbname(),
            store: store.describe(),
            system,
            history,
        })
    }

    /// A replication connection, within `limit`.
    pub async fn replication(&self, limit: Duration, log: &Logger) -> Result<ReplicationClient> {
        Ok(ReplicationClient::connect(&logged(&self.replication_info, log), limit).await?)
    }

    /// Checks the publication and its tables; creates it if it is missing and that is wanted.
    /// Answers whether it had to be created, and what is wrong and did not end it.
    pub async fn publication(
        &self,
        client: &Client,
        create: bool,
        refuse: RefuseOn,
        log: &Logger,
    ) -> Result<(bool, Vec<Finding>)> {
        let tables = self.config.outbox_tables();
        published(&self.config, &tables).prepare(client, create, refuse, log).await
    }
}

/// Logs one line for each finding.
pub(crate) fn log_findings(findings: &[Finding], log: &Logger) {
    for Finding { severity, problem, remedy, .. } in findings {
        match severity {
            Severity::Warning => {
                warn!(log, "the publication may need attention"; "found" => problem, "remedy" => remedy);
            }
            Severity::Error => {
                error!(log, "an outbox table is not relayed as it is configured";
                    "found" => problem, "remedy" => remedy);
            }
        }
    }
}

/// Refuses a cluster that took the place of the one that was read so far, unless the
/// store knows it. An empty one, with a store inside of it, would otherwise look like
/// the first start of all.
async fn vouched(
    store: &dyn CheckpointStore,
    slot: &str,
    cluster: u64,
    system: &SystemId,
) -> Result<()> {
    let known = match store.load(slot).await {
        Ok(checkpoint) => checkpoint.is_some_and(|saved| saved.system_id == system.system_id),
        // It may not even have the table.
        Err(_) => false,
    };
    if known {
        return Ok(());
    }
    let what = format!(
        "the server is cluster {} now, and {} knows no position in it; this process has read \
         cluster {cluster}, of which facts may be missing",
        system.system_id,
        store.describe()
    );
    Err(Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT))
}

/// The history of the server's timeline, where the checkpoint was saved on another one.
async fn history(
    replication: &mut ReplicationClient,
    saved: &Checkpoint,
    system: &SystemId,
    log: &Logger,
) -> Result<Option<TimelineHistory>> {
    // Of another cluster, nothing of it means anything here.
    if saved.timeline == system.timeline || saved.system_id != system.system_id {
        return Ok(None);
    }
    info!(log, "the server was promoted or restored since the position was saved";
        "timeline" => system.timeline, "saved_timeline" => saved.timeline, "saved" => %saved.lsn);
    let read = replication.timeline_history(system.timeline).await.map_err(Error::from);
    read.map(Some).map_err(|error| match error.is_transient() {
        true => error,
        // Without it nobody knows whether the position means anything here.
        false => {
            let what = format!(
                "the position {} is of timeline {}, and how the server's timeline {} came from that \
                 can't be told",
                saved.lsn, saved.timeline, system.timeline
            );
            Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT).caused_by(error)
        }
    })
}
