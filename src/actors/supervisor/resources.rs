//! The parts of a pipeline, and the actors that live as long as it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::{Actor, Addr};
use actix_rt::ArbiterHandle;
use factlib_postgres::{ConnectInfo, WaitsFor};
use slog::{Logger, info, o};
use tokio::sync::watch;

use super::Supervisor;
use crate::{
    Error, Result,
    actors::{
        checkpointer::{Checkpointer, SaveSchedule},
        lane::Lanes,
        outbox_tables::{PublicationWatch, RowSweeper},
        receipt_writer::ReceiptTarget,
        topic_producer::PartitionWatch,
        wal_reader::WalWatch,
    },
    checkpoint::CheckpointStore,
    config::Config,
    dead_letter::HeldEvents,
    exactly_once::{Positions, Transactions},
    faults::Faults,
    handlers::HandlerLaneNames,
    messages::{ActorKind, ByteWindow, ExitGuard},
    outbox::OldRowRemover,
    postgres::Reconnecting,
    startup::{InKafka, SlotClaim, Start, Startup},
    status::{ActorState, BlockedBy, PipelineState, Status},
};

/// Threads beside the one that the supervisor, the chain and the lanes run on.
pub(crate) struct Threads {
    /// Reads: that must not wait for what is done with what was read.
    pub reading: ArbiterHandle,
    /// Saves positions, and asks the database now and then: a save whose answer waits until the
    /// chain has a moment would leave windows of delivered events unsaved.
    pub saving: ArbiterHandle,
    /// Other pipelines run on them, too.
    pub are_shared: bool,
}

/// The parts of a pipeline, of which actors are built.
#[derive(Clone)]
pub(crate) struct PipelineResources {
    pub config: Arc<Config>,
    pub startup: Arc<Startup>,
    pub store: Arc<dyn CheckpointStore>,
    pub lanes: Arc<dyn Lanes>,
    pub handlers: HandlerLaneNames,
    /// None unless `dead_letter.policy` is `hold-aggregate`.
    pub held: Option<Arc<HeldEvents>>,
    /// If false, only handlers and dead letters have lanes.
    pub kafka: bool,
    /// None if no positions are in Kafka.
    pub positions: Option<Arc<Positions>>,
    /// None without exactly-once.
    pub transactions: Option<Arc<Transactions>>,
    /// None without the client that it watches.
    pub partition_watch: Option<PartitionWatch>,
    /// None if no receipts are kept.
    pub receipts: Option<ReceiptTarget>,
    pub window: ByteWindow,
    /// Topics that are held back from the start.
    pub paused: HashSet<Arc<str>>,
    pub claim: SlotClaim,
    /// Set to true when the pipeline waits for nothing but its slot.
    pub is_ready: Arc<watch::Sender<bool>>,
    /// False while another instance of the fleet runs the pipeline.
    pub may_take_slot: watch::Receiver<bool>,
    pub status: Arc<Status>,
    pub faults: Faults,
    /// True if deliveries become spans.
    #[cfg(feature = "otlp")]
    pub traced: bool,
    pub log: Logger,
}

impl PipelineResources {
    /// Makes the topics ready that the pipeline itself writes. Needs no slot.
    pub async fn prepare_topics(&self) -> Result<()> {
        if let Some(receipts @ ReceiptTarget::Topic(_)) = &self.receipts {
            receipts.prepare(&self.log).await?;
        }
        match &self.positions {
            Some(positions) if self.transactions.is_some() => positions.create().await,
            _ => Ok(()),
        }
    }

    /// The start, or a later one where the position in Kafka is further. With exactly-once,
    /// nobody but this instance writes for the slot any more when this returns.
    pub async fn with_kafka(&self, start: Start, first: bool, limit: Duration) -> Result<Start> {
        if let Some(receipts @ ReceiptTarget::Table(_)) = self.receipts.as_ref().filter(|_| first) {
            receipts.prepare(&self.log).await?;
        }
        // Each session of transactions opens the topics, which may be gone since the first start.
        if !first && self.transactions.is_some() {
            self.prepare_topics().await?;
        }
        // Without transactions, no position comes there after the first start.
        let asked = self.positions.as_ref().filter(|_| first || self.transactions.is_some());
        let Some(positions) = asked else { return Ok(start) };
        let kafka = InKafka { positions, transactions: self.transactions.as_deref() };
        self.startup.with_kafka(start, kafka, &*self.store, limit, &self.log).await
    }

    /// Reports that the start waits for a transaction.
    pub fn waits(&self, waits_for: &WaitsFor) {
        let actor = ActorKind::WalReader.name();
        let text = format!("creating the slot waits for {waits_for}");
        self.status.actor_waits(actor, Some(BlockedBy::Postgres));
        self.status.actor_complains(actor, text);
    }

    /// Reports that this instance waits for another one, which reads the slot or is not done with it.
    pub fn stands_by(&self, error: &Error) {
        let state = PipelineState::StandingBy { error: error.to_string() };
        self.status.actor_waits(ActorKind::WalReader.name(), Some(BlockedBy::Slot));
        // That it goes on is no news.
        if self.status.snapshot().state != state {
            info!(self.log, "standing by"; "because" => %error);
        }
        self.status.set_state(state);
    }

    pub fn checkpointer(
        &self,
        supervisor: Addr<Supervisor>,
        thread: &ArbiterHandle,
    ) -> Addr<Checkpointer> {
        let actor = ActorKind::Checkpointer;
        let checkpointer = Checkpointer::new(
            Arc::clone(&self.store),
            SaveSchedule::new(self.config.checkpoint.clone(), self.window.size() as u64),
            supervisor.clone().recipient(),
            Arc::clone(&self.status),
            self.faults.clone(),
            self.runs(actor.name()),
            ExitGuard { actor, generation: 0, to: supervisor.recipient() },
        );
        Checkpointer::start_in_arbiter(thread, |_| checkpointer)
    }

    /// The sessions for occasional queries, with the server that is read and the one that is written: one
    /// session if these are the same.
    pub fn watch_sessions(&self) -> (Reconnecting, Reconnecting) {
        let (startup, limit) = (&self.startup, self.config.postgres.connect_timeout);
        let session = |info: &ConnectInfo| Reconnecting::new(info.clone(), limit, self.log.clone());
        let read = session(&startup.info);
        match self.config.postgres.primary_url {
            Some(_) => (read, session(&startup.writing_info)),
            None => (read.clone(), read),
        }
    }

    pub fn wal_watch(&self, server: Reconnecting, thread: &ArbiterHandle) -> Addr<WalWatch> {
        let settings = &self.config.postgres;
        let log = self.runs("wal_watch");
        let (slot, status) = (settings.slot.clone(), Arc::clone(&self.status));
        let watch = WalWatch::new(settings.retained_wal_warning, slot, server, status, log);
        WalWatch::start_in_arbiter(thread, |_| watch)
    }

    pub fn publication_watch(
        &self,
        server: Reconnecting,
        thread: &ArbiterHandle,
    ) -> Addr<PublicationWatch> {
        let log = self.runs("publication_watch");
        let (config, status) = (Arc::clone(&self.config), Arc::clone(&self.status));
        let watch = PublicationWatch::new(config, server, status, log);
        PublicationWatch::start_in_arbiter(thread, |_| watch)
    }

    /// None without `retention.after`.
    pub fn row_sweeper(&self, thread: &ArbiterHandle) -> Option<Addr<RowSweeper>> {
        let (config, retention) = (&self.config, &self.config.retention);
        let after = retention.after?;
        let log = self.runs("row_sweeper");
        let rows = OldRowRemover::new(
            self.startup.info.clone(),
            config.postgres.connect_timeout,
            config.postgres.slot.clone(),
            after,
            retention,
            (config.retention_tables(), config.outbox_tables()),
            log.clone(),
        );
        let sweeper = RowSweeper::new(rows, retention.interval, Arc::clone(&self.status), log);
        Some(RowSweeper::start_in_arbiter(thread, |_| sweeper))
    }

    /// Reports that this actor runs, and gives its logger.
    fn runs(&self, actor: &'static str) -> Logger {
        self.status.actor_is(actor, ActorState::Running);
        self.log.new(o!("actor" => actor))
    }
}
