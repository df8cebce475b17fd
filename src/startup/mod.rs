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
mod prepare;
mod setup;
mod slot_claim;
mod standby;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib_postgres::{ConnectInfo, Encoding, ReplicationClient, SilenceLimit, Slot, SqlSession};
use slog::{Logger, error, warn};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub use self::setup::{SetupReport, setup, setup_sql};
pub(crate) use self::{
    failover::SentUpTo,
    kafka::InKafka,
    move_record::{MoveRecord, Side, Stage},
    other_relays::{ONE_SLOT, other_relays},
    prepare::Standby,
    slot_claim::SlotClaim,
    standby::StandbyPositions,
};
use self::{identity::history, other_relays::reader_name, position::StartRules};
use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::{
        Checkpoint, CheckpointStore, FileStore, MemoryStore, Partial, PostgresStore,
        TopicPartitions,
    },
    config::{Config, OutboxTable, RefusalPolicy, StoreKind},
    dead_letter::{DeadLetterTable, HeldEvents},
    outbox::{
        Finding, Severity, TableFacts,
        publication::{PublicationSpec, RefuseOn},
    },
    postgres::{
        Reconnecting, commit_report::CommitRules, logged, managed::pooler_remedy,
        slot_reader::OwnBackend,
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
    start_session: OnceLock<Reconnecting>,
    /// True once other relays of the same events were looked for.
    asked_for_others: AtomicBool,
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
            start_session: OnceLock::new(),
            asked_for_others: AtomicBool::new(false),
        })
    }

    /// Opens the configured checkpoint store.
    pub fn store(&self, log: &Logger) -> Arc<dyn CheckpointStore> {
        let settings = &self.config.checkpoint;
        match settings.store {
            StoreKind::File => Arc::new(FileStore::new(&settings.path)),
            StoreKind::Memory => Arc::new(MemoryStore::default()),
            StoreKind::Postgres => {
                let (info, timeout) =
                    (self.writing_info.clone(), self.config.postgres.connect_timeout);
                let shared = self.start_session(log);
                Arc::new(PostgresStore::sharing(shared, info, timeout, log.clone()))
            }
        }
    }

    /// The table of the numbers of partitions; none if the position is not kept in the database.
    pub fn topic_partitions(&self, log: &Logger) -> Option<TopicPartitions> {
        if self.config.checkpoint.store != StoreKind::Postgres {
            return None;
        }
        let settings = &self.config.postgres;
        let shared = self.start_session(log);
        Some(TopicPartitions::new(settings.slot.clone(), settings.create, shared))
    }

    /// The session for what is read and written in the tables of `factlib` at a start.
    fn start_session(&self, log: &Logger) -> Reconnecting {
        let make = || {
            let (info, timeout) = (self.writing_info.clone(), self.config.postgres.connect_timeout);
            Reconnecting::new(info, timeout, log.clone()).closed_when_idle()
        };
        self.start_session.get_or_init(make).clone()
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

    /// True while a slot is being created; a stop has to wait until that is cancelled.
    pub fn is_creating(&self) -> bool {
        self.creating.load(Relaxed)
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
