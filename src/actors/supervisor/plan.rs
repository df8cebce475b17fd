//! What a pipeline is made of, and the actors that live as long as it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::{Actor, Addr};
use slog::{Logger, o};

use super::Supervisor;
use crate::{
    Result,
    actors::{
        checkpointer::Checkpointer, lane::Lanes, publication_watch::PublicationWatch,
        row_sweeper::RowSweeper, wal_watch::WalWatch,
    },
    checkpoint::CheckpointStore,
    config::Config,
    faults::Faults,
    handlers::HandlerTopics,
    kafka::{positions::Positions, transactions::Transactions},
    messages::{ActorKind, ByteWindow, ExitGuard},
    outbox::OldRows,
    pipeline::SlotClaim,
    postgres::Reconnecting,
    startup::{InKafka, Start, Startup},
    status::{ActorState, Status},
};

/// What a pipeline is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub config: Arc<Config>,
    pub startup: Arc<Startup>,
    pub store: Arc<dyn CheckpointStore>,
    pub lanes: Arc<dyn Lanes>,
    pub handlers: HandlerTopics,
    /// Where false, only handlers and dead letters have lanes.
    pub kafka: bool,
    /// Where positions may be in Kafka.
    pub positions: Option<Arc<Positions>>,
    /// With exactly-once.
    pub transactions: Option<Arc<Transactions>>,
    pub window: ByteWindow,
    /// Topics that are held back from the start.
    pub paused: HashSet<Arc<str>>,
    pub claim: SlotClaim,
    pub status: Arc<Status>,
    pub faults: Faults,
    pub log: Logger,
}

impl Plan {
    /// The start, or a later one where the position in Kafka is further. With exactly-once,
    /// nobody but this instance writes for the slot any more when this returns.
    pub async fn with_kafka(&self, start: Start, first: bool, limit: Duration) -> Result<Start> {
        // Without transactions, none comes there after the first start.
        let asked = self.positions.as_ref().filter(|_| first || self.transactions.is_some());
        let Some(positions) = asked else { return Ok(start) };
        let kafka = InKafka { positions, transactions: self.transactions.as_deref() };
        self.startup.with_kafka(start, kafka, &*self.store, limit, &self.log).await
    }

    pub fn checkpointer(&self, supervisor: Addr<Supervisor>) -> Addr<Checkpointer> {
        let actor = ActorKind::Checkpointer;
        Checkpointer::new(
            Arc::clone(&self.store),
            self.config.checkpoint.clone(),
            supervisor.clone().recipient(),
            Arc::clone(&self.status),
            self.faults.clone(),
            self.runs(actor.name()),
            ExitGuard { actor, generation: 0, to: supervisor.recipient() },
        )
        .start()
    }

    pub fn wal_watch(&self) -> Addr<WalWatch> {
        let settings = &self.config.postgres;
        let log = self.runs("wal_watch");
        let info = self.startup.info.clone();
        let server = Reconnecting::new(info, settings.connect_timeout, log.clone());
        let (slot, status) = (settings.slot.clone(), Arc::clone(&self.status));
        WalWatch::new(settings.retained_wal_warning, slot, server, status, log).start()
    }

    pub fn publication_watch(&self) -> Addr<PublicationWatch> {
        let log = self.runs("publication_watch");
        let (info, limit) = (self.startup.info.clone(), self.config.postgres.connect_timeout);
        let server = Reconnecting::new(info, limit, log.clone());
        let (config, status) = (Arc::clone(&self.config), Arc::clone(&self.status));
        PublicationWatch::new(config, server, status, log).start()
    }

    /// None without `retention.after`.
    pub fn row_sweeper(&self) -> Option<Addr<RowSweeper>> {
        let (config, retention) = (&self.config, &self.config.retention);
        let after = retention.after?;
        let log = self.runs("row_sweeper");
        let rows = OldRows::new(
            self.startup.info.clone(),
            config.postgres.connect_timeout,
            config.postgres.slot.clone(),
            after,
            retention,
            config.retention_tables(),
            log.clone(),
        );
        Some(RowSweeper::new(rows, retention.interval, Arc::clone(&self.status), log).start())
    }

    /// The status says that this actor runs, from now on; its logger.
    fn runs(&self, actor: &'static str) -> Logger {
        self.status.actor_is(actor, ActorState::Running);
        self.log.new(o!("actor" => actor))
    }
}
