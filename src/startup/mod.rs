//! Prepares the server before anything is read, and decides where reading starts.
//!
//! The checkpoint is compared with the slot and the server. If they contradict each other, events may
//! be missing, and only a person can accept that.

mod failover;
mod identity;
mod kafka;
mod move_record;
mod other_relays;
mod position;
mod setup;
mod slot_claim;
mod standby;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib_postgres::{
    ConnectInfo, Encoding, ReplicationClient, Server, SilenceLimit, Slot, SqlSession, WaitsFor,
};
use slog::{Logger, error, info, warn};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub use self::setup::{SetupReport, setup, setup_sql};
pub(crate) use self::{
    failover::SentUpTo,
    kafka::InKafka,
    move_record::{MoveRecord, Side, Stage},
    other_relays::{ONE_SLOT, other_relays},
    slot_claim::SlotClaim,
    standby::StandbyPositions,
};
use self::{
    identity::{check_cluster_change, history},
    other_relays::reader_name,
    position::{StartRules, check_owner, not_ready},
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::{
        Checkpoint, CheckpointStore, FileStore, MemoryStore, Partial, PostgresStore,
        TopicPartitions,
    },
    config::{Config, OutboxTable, RefusalPolicy, StoreKind, WaitForVisibility},
    dead_letter::{DeadLetterTable, HeldEvents},
    outbox::{
        Finding, Severity, TableFacts,
        publication::{PublicationSpec, RefuseOn},
    },
    postgres::{
        Reconnecting,
        commit_report::{CommitRules, has_synchronous_standbys},
        logged,
        managed::pooler_remedy,
        postgres_error, read_encoding, server,
        slot_reader::END_LIMIT,
        slot_reader::OwnBackend,
        slot_reader::SlotReader,
        sql_session,
    },
    receipts::ReceiptTable,
};

/// Connects to the server, and checks and creates what the relay needs there.
pub(crate) struct Startup {
    pub info: ConnectInfo,
    /// `info` for replication, with an `application_name` that names what the relay reads.
    pub replication_info: ConnectInfo,
    /// `info`, or that of the primary if `info` is a standby's: the relay writes there.
    pub writing_info: ConnectInfo,
    /// Cancelled when the relay stops: ends steps without a time limit.
    pub stop: CancellationToken,
    config: Arc<Config>,
    /// True while a slot is being created.
    creating: AtomicBool,
    silence_limit: Arc<SilenceLimit>,
    own_backend: Arc<OwnBackend>,
    needs_text: Arc<AtomicBool>,
}

/// Start of a generation.
#[derive(Debug)]
pub(crate) struct Start {
    pub from: Checkpoint,
    /// Events of the next transaction that were already sent.
    pub partial: Option<Partial>,
    /// End of the server's WAL at the start.
    pub wal_end: Lsn,
    pub status_interval: Duration,
    /// Encoding of the texts in the stream.
    pub encoding: Encoding,
    pub tables: TableFacts,
    /// True if the rows of tables come in binary.
    pub binary: bool,
    /// What has to be true of a transaction before its events are sent.
    pub commit_rules: CommitRules,
}

/// Options of a start.
#[derive(Clone, Copy, Default)]
struct StartOptions {
    /// Create what is missing.
    create: bool,
    /// Ignore the checkpoint, and replace a lost slot by a new one.
    accept: bool,
    /// Cluster that this process has read so far.
    cluster: Option<u64>,
    /// A person runs this: refuse on any finding about the publication.
    attended: bool,
}

/// How a start waits for a slot that another instance reads.
#[derive(Clone, Copy)]
pub(crate) struct Standby<'a> {
    /// Pause between two looks at the slot.
    pub pause: Duration,
    /// Called with the error that tells who reads it.
    pub on_standby: &'a (dyn Fn(&Error) + Sync),
}

/// After so long, a standby checks all of the server again.
const CHECKED_EVERY: Duration = Duration::from_secs(30);

/// The publication that these tables need.
pub(crate) fn publication_spec<'a>(
    config: &'a Config,
    tables: &'a [OutboxTable],
) -> PublicationSpec<'a> {
    let settings = &config.postgres;
    let accept_row_filter = settings.accept_row_filter;
    PublicationSpec { publication: &settings.publication, tables, accept_row_filter }
}

impl Startup {
    pub fn new(config: &Arc<Config>) -> Result<Self> {
        let info = config.postgres.connect_info()?;
        let replication_info = info.clone().with_default_application_name(reader_name(config));
        let writing_info = config.postgres.writing_info(&info)?;
        if writing_info.dbname() != info.dbname() {
            let what = format!(
                "postgres.url names database {} and postgres.primary_url database {}",
                info.dbname(),
                writing_info.dbname()
            );
            return Err(Error::new(ErrorKind::Config, what).remedy("name the same in both"));
        }
        let (stop, creating) = (CancellationToken::new(), AtomicBool::new(false));
        let silence_limit = Arc::new(SilenceLimit::new(config.postgres.wal_receiver_timeout));
        Ok(Startup {
            info,
            replication_info,
            writing_info,
            stop,
            config: Arc::clone(config),
            creating,
            silence_limit,
            own_backend: Arc::default(),
            needs_text: Arc::default(),
        })
    }

    /// Opens the configured checkpoint store.
    pub fn store(&self, log: &Logger) -> Arc<dyn CheckpointStore> {
        let settings = &self.config.checkpoint;
        match settings.store {
            StoreKind::File => Arc::new(FileStore::new(&settings.path)),
            StoreKind::Memory => Arc::new(MemoryStore::default()),
            StoreKind::Postgres => {
                let timeout = self.config.postgres.connect_timeout;
                Arc::new(PostgresStore::new(self.writing_info.clone(), timeout, log.clone()))
            }
        }
    }

    /// The table of the numbers of partitions; none if the position is not kept in the database.
    pub fn topic_partitions(&self, log: &Logger) -> Option<TopicPartitions> {
        if self.config.checkpoint.store != StoreKind::Postgres {
            return None;
        }
        let settings = &self.config.postgres;
        let (slot, info) = (settings.slot.clone(), self.writing_info.clone());
        let (create, timeout) = (settings.create, settings.connect_timeout);
        Some(TopicPartitions::new(slot, create, info, timeout, log.clone()))
    }

    /// The table for dead letters that no topic takes.
    pub fn dead_letter_table(&self, log: &Logger) -> DeadLetterTable {
        let settings = &self.config.postgres;
        let (info, log) = (self.writing_info.clone(), log.clone());
        let (create, timeout) = (settings.create, settings.connect_timeout);
        DeadLetterTable::new(settings.slot.clone(), create, info, timeout, log)
    }

    /// The table of receipts.
    pub fn receipt_table(&self, log: &Logger) -> ReceiptTable {
        let settings = &self.config.postgres;
        let (info, log) = (self.writing_info.clone(), log.clone());
        let (create, timeout) = (settings.create, settings.connect_timeout);
        ReceiptTable::new(settings.slot.clone(), create, info, timeout, log)
    }

    /// The table of held events; none unless `dead_letter.policy` is `hold-aggregate`.
    pub fn held_events(&self, log: &Logger) -> Option<Arc<HeldEvents>> {
        let Config { postgres, dead_letter, .. } = &*self.config;
        if dead_letter.policy != RefusalPolicy::HoldAggregate {
            return None;
        }
        let (info, timeout) = (self.writing_info.clone(), postgres.connect_timeout);
        let connection = Reconnecting::new(info, timeout, log.clone());
        let (slot, create) = (postgres.slot.clone(), postgres.create);
        Some(Arc::new(HeldEvents::new(slot, create, dead_letter.held_limit, connection)))
    }

    /// Checks the server, creates what is missing if configured, and decides where reading starts.
    ///
    /// An attempt to connect is limited by `limit`. With `cluster`, another cluster is refused unless
    /// a checkpoint belongs to it. Creating the slot waits for running transactions; `on_wait` is
    /// called with what it waits for. With `standby`, a slot that another instance reads is waited for.
    pub async fn prepare(
        &self,
        store: &dyn CheckpointStore,
        cluster: Option<u64>,
        limit: Duration,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        standby: Option<Standby<'_>>,
        log: &Logger,
    ) -> Result<Start> {
        let client = sql_session(&self.info, limit, log).await?;
        let create = self.config.postgres.create;
        let options = StartOptions { create, accept: false, cluster, attended: false };
        let begun = Instant::now();
        let start = loop {
            let start = self.prepare_with(&client, store, options, limit, on_wait, log).await?;
            let Err(error) = self.ensure_slot_is_free(&client, log).await else { break start };
            match standby {
                // All is read again then, as the other instance has moved on.
                Some(standby) if error.kind() == ErrorKind::SlotInUse => {
                    (standby.on_standby)(&error);
                    self.slot_is_free(&client, standby.pause, begun + CHECKED_EVERY, error).await?;
                }
                _ => return Err(error),
            }
        };
        // Now: while the slot is read, the server would wait for its end.
        self.enable_failover(&client, limit, log).await?;
        // Once per process: it is not a failure, and lasts as long as both run.
        if cluster.is_none() {
            self.warn_of_others(&client, log).await;
        }
        Ok(start)
    }

    /// Limit for the server's silence.
    pub fn silence_limit(&self) -> Arc<SilenceLimit> {
        Arc::clone(&self.silence_limit)
    }

    /// The server process that reads or read the slot for this relay.
    pub fn own_backend(&self) -> Arc<OwnBackend> {
        Arc::clone(&self.own_backend)
    }

    /// The flag by which a decoder says that rows have to come in text, from the next start on.
    pub fn needs_text(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.needs_text)
    }

    /// Refuses a slot that another process reads; ends a left-over reader of this relay.
    async fn ensure_slot_is_free(&self, client: &SqlSession, log: &Logger) -> Result<()> {
        // Query it, because an attempt to read would log an error on the server each time.
        let slot = &self.config.postgres.slot;
        let reading = SlotReader::of(client, slot);
        match self.answered(client, "who reads the slot", reading).await? {
            None => Ok(()),
            Some(reader) if self.own_backend.is(&reader.backend) => {
                // The limit includes the time that the process takes to end.
                let limit = self.config.postgres.connect_timeout + END_LIMIT;
                let ending = reader.end(client, slot, log);
                let ended = client.within(limit, ending).await;
                ended.unwrap_or_else(|given_up| Err(reader.in_use(slot).caused_by(given_up)))
            }
            Some(reader) => Err(reader.in_use(slot)),
        }
    }

    /// Waits until nobody reads the slot, in the session that has just prepared the start: so the
    /// start goes fast when the slot is free.
    ///
    /// # Errors
    /// `in_use` if it is still read at `deadline`.
    async fn slot_is_free(
        &self,
        client: &SqlSession,
        pause: Duration,
        deadline: Instant,
        in_use: Error,
    ) -> Result<()> {
        // Without the reader's session: the list of all sessions costs the server more.
        let query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let slot = &self.config.postgres.slot;
        let failed = |error| postgres_error(format!("cannot look up slot {slot}"), error);
        let query = client.prepare(query).await.map_err(failed)?;
        loop {
            let looking = async { client.query_opt(&query, &[slot]).await.map_err(failed) };
            if self.answered(client, "whether the slot is free", looking).await?.is_none() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(in_use);
            }
            sleep(pause).await;
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

    /// Waits for an answer for at most `postgres.connect_timeout`, so that a lock or a silent network
    /// becomes an error.
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

    /// Creates the slot, which waits for running transactions that write.
    pub async fn create_slot(
        &self,
        client: &SqlSession,
        server: &Server,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Slot> {
        let failover = self.config.postgres.failover
            && server.has_failover_slots()
            && !server.is_in_recovery();
        let name = &self.config.postgres.slot;
        info!(log, "creating the slot, which waits for running transactions to end";
            "slot" => name);
        let creating = Slot::create(client, name, self.info.dbname(), failover);
        self.creating.store(true, Relaxed);
        let created = client.run_watched(creating, &self.stop, |waits_for| {
            warn!(log, "creating the slot waits for a transaction"; "slot" => name,
                "waits_for" => %waits_for, "remedy" => waits_for.remedy());
            on_wait(waits_for);
        });
        let created = match server.is_in_recovery() {
            false => created.await,
            true => tokio::select! {
                created = created => created,
                never = standby::log_snapshots(self, on_wait, log) => match never {},
            },
        };
        self.creating.store(false, Relaxed);
        let created = created.ok_or_else(|| {
            let what = format!("creating slot {name} was cancelled because the relay stops");
            Error::new(ErrorKind::PostgresUnavailable, what)
        })?;
        Ok(created?)
    }

    /// True while a slot is being created; a stop has to wait until that is cancelled.
    pub fn is_creating(&self) -> bool {
        self.creating.load(Relaxed)
    }

    /// Refuses a slot that can't be read yet: it is still being created and has no position, or it is
    /// a standby's copy.
    async fn check_ready(&self, client: &SqlSession, server: &Server, slot: &Slot) -> Result<()> {
        failover::check_is_no_copy(&self.config.postgres.slot, server, slot)?;
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
        options: StartOptions,
        limit: Duration,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Start> {
        let StartOptions { create, accept, cluster, attended } = options;
        let settings = &self.config.postgres;
        let server = self.answered(client, "what it is", Server::read(client)).await?;
        let tables = self.config.outbox_tables();
        server::check(&server, &self.config)?;
        let rules = self.commit_rules(client);
        let commit_rules = self.answered(client, "about its standbys", rules).await?;
        let encoding =
            self.answered(client, "in which encoding it is", read_encoding(client, log)).await?;
        let mut replication = self.replication(limit, log).await?;
        let system = replication.identify_system().await?;
        let reading = MoveRecord::read(client, system.system_id, &settings.slot);
        let moving = self.answered(client, "about a move", reading).await?;
        // A physical copy has the same identifier.
        let is_moved_from = |cluster: u64| {
            cluster != system.system_id
                && moving.as_ref().is_some_and(|record| record.is_with(cluster))
        };
        if let Some(record) = moving.as_ref().filter(|_| !attended) {
            record.check_start()?;
        }
        // First, so that nothing is created in a cluster that may be the wrong one.
        if let Some(cluster) = cluster.filter(|cluster| *cluster != system.system_id)
            && !is_moved_from(cluster)
        {
            check_cluster_change(store, &settings.slot, cluster, &system).await?;
        }
        let reading = Slot::read(client, &settings.slot);
        if let Some(slot) = self.answered(client, "for the slot", reading).await? {
            check_owner(&settings.slot, self.info.dbname(), &slot)?;
            self.check_ready(client, &server, &slot).await?;
        }
        let refuse = match cluster {
            _ if attended => RefuseOn::AnyFinding,
            Some(_) => RefuseOn::Nothing,
            // An unreadable store is reported further below.
            None if tables.len() > 1 && matches!(store.load(&settings.slot).await, Ok(Some(_))) => {
                RefuseOn::EveryTable
            }
            None => RefuseOn::AnyFinding,
        };
        let (publication_created, findings) = match server.is_in_recovery() {
            false => {
                let publishing = self.publication(client, create, refuse, log);
                self.answered(client, "for the publication", publishing).await?
            }
            true => standby::publication(self, client, create, refuse, limit, log).await?,
        };
        if attended {
            // In a pipeline, the watcher logs them.
            log_findings(&findings, log);
        }
        if create {
            store.create().await?;
        }
        let facts = TableFacts::read(client, &tables);
        let facts = self.answered(client, "for the outbox tables", facts).await?;
        // Texts in binary would not be converted.
        let binary = matches!(encoding, Encoding::AsIs)
            && facts.known_in_binary
            && !self.needs_text.load(Relaxed);
        // In this order, because another instance may be moving them right now: first the WAL, then
        // the checkpoint, then the slot.
        let reading = Slot::read(client, &settings.slot);
        let mut slot = self.answered(client, "for the slot", reading).await?;
        if let Some(slot) = &slot {
            self.check_ready(client, &server, slot).await?;
        }
        let checkpoint = match accept {
            true => None,
            // A position of the other server means nothing here: this slot has waited since the move
            // was prepared.
            false => {
                let saved = store.load(&settings.slot).await?;
                saved.filter(|saved| !is_moved_from(saved.system_id))
            }
        };
        let rules = self.start_rules(&mut replication, checkpoint.as_ref(), store, log).await?;
        if publication_created && slot.is_some() && !server.applies_publications_retroactively() {
            warn!(log, "the slot is older than the publication: a change to a table in between \
                stops the reading"; "slot" => &settings.slot,
                "publication" => &settings.publication,
                "remedy" => "if that happens, its error says how to start from a new slot");
        }
        if accept && let Some(mut lost) = slot.take_if(|slot| slot.lost.is_some()) {
            // Don't drop a slot of another plugin or database.
            lost.lost = None;
            rules.decide(Some(lost), None)?;
            Slot::drop(client, &settings.slot).await?;
        }
        let slot = match (slot, &moving) {
            (None, Some(record)) if !attended => return Err(record.slot_is_gone()),
            (None, _) if create && checkpoint.is_none() => {
                Some(self.create_slot(client, &server, on_wait, log).await?)
            }
            (slot, _) => slot,
        };
        let wal_end = rules.system.wal_end;
        let saved = checkpoint.as_ref().map(|saved| saved.lsn);
        let from = rules.decide(slot, checkpoint)?;
        if let Some(saved) = saved.filter(|saved| *saved < from.lsn) {
            info!(log, "the slot came over further than the checkpoint: reading starts at the slot";
                "slot" => %from.lsn, "checkpoint" => %saved, "timeline" => from.timeline);
        }
        let status_interval = server::status_interval(&server, settings);
        let (partial, tables) = (None, facts);
        Ok(Start {
            from,
            partial,
            wal_end,
            status_interval,
            encoding,
            tables,
            binary,
            commit_rules,
        })
    }

    /// Decides what has to be true of a transaction before its events are sent.
    async fn commit_rules(&self, client: &Client) -> Result<CommitRules> {
        let delivery = &self.config.delivery;
        let visible = match delivery.wait_for_visibility {
            WaitForVisibility::Always => true,
            WaitForVisibility::Never => false,
            WaitForVisibility::Auto => has_synchronous_standbys(client).await?,
        };
        let rules = CommitRules { standbys: delivery.wait_for_standbys.clone(), visible };
        rules.check(client, self.info.user()).await?;
        Ok(rules)
    }

    /// Decides where reading would start with this slot and this checkpoint; changes nothing.
    pub async fn decide_start(
        &self,
        replication: &mut ReplicationClient,
        slot: Option<Slot>,
        checkpoint: Option<Checkpoint>,
        store: &dyn CheckpointStore,
        log: &Logger,
    ) -> Result<Checkpoint> {
        let rules = self.start_rules(replication, checkpoint.as_ref(), store, log).await?;
        rules.decide(slot, checkpoint)
    }

    /// Reads the server's identity and history, by which positions are judged.
    async fn start_rules(
        &self,
        replication: &mut ReplicationClient,
        checkpoint: Option<&Checkpoint>,
        store: &dyn CheckpointStore,
        log: &Logger,
    ) -> Result<StartRules<'_>> {
        let system = replication.identify_system().await?;
        let history = match checkpoint {
            Some(saved) => history(replication, saved, &system, log).await?,
            None => None,
        };
        Ok(StartRules {
            slot_name: &self.config.postgres.slot,
            database: self.info.dbname(),
            store: store.describe(),
            store_is_replicated: self.config.checkpoint.store == StoreKind::Postgres,
            system,
            history,
        })
    }

    /// Opens a replication connection within `limit`, and checks that it is one.
    pub async fn replication(&self, limit: Duration, log: &Logger) -> Result<ReplicationClient> {
        let connecting = async {
            let info = logged(&self.replication_info, log);
            let mut client = ReplicationClient::connect(&info, limit).await?;
            client.identify_system().await?;
            Ok(client)
        };
        connecting.await.map_err(|error: factlib_postgres::Error| {
            let is_pooler = error.kind() == factlib_postgres::ErrorKind::Pooler;
            let hosts = self.replication_info.describe_hosts();
            match pooler_remedy(&hosts).filter(|_| is_pooler) {
                Some(remedy) => Error::from(error).remedy(remedy),
                None => error.into(),
            }
        })
    }

    /// Checks the publication and its tables, and creates it if it is missing and `create` is set.
    /// Returns true if it was created, and the findings on which it did not refuse.
    pub async fn publication(
        &self,
        client: &Client,
        create: bool,
        refuse: RefuseOn,
        log: &Logger,
    ) -> Result<(bool, Vec<Finding>)> {
        let tables = self.config.outbox_tables();
        publication_spec(&self.config, &tables).prepare(client, create, refuse, log).await
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
