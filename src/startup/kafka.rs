//! Combines the position in Kafka with the store's: reading starts at the later one.

use std::{sync::Arc, time::Duration};

use factlib_postgres::SystemId;
use slog::{Logger, info, warn};

use super::{Start, Startup, position::StartRules};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::{CheckpointStore, Position},
    config::Config,
    exactly_once::{PositionReaders, Positions, Transactions},
};

/// Access to the positions in Kafka, and with exactly-once to the transactions that write them.
#[derive(Clone, Copy)]
pub(crate) struct InKafka<'a> {
    pub positions: &'a Positions,
    pub transactions: Option<&'a Transactions>,
}

/// Removes the slot's position from Kafka.
pub(super) async fn forget(config: &Arc<Config>, cluster: u64, log: &Logger) -> Result<()> {
    let positions = Positions::new(config, &PositionReaders::default(), log.clone());
    match positions.exist().await? {
        true => positions.forget(cluster).await,
        false => Ok(()),
    }
}

impl Startup {
    /// Begins a session of transactions, if configured, and reads the position.
    ///
    /// Call it when nobody else reads the slot. The session begins first: it shuts out an instance that
    /// could still move the position.
    ///
    /// Without transactions, the position is moved from Kafka to the store.
    pub async fn with_kafka(
        &self,
        start: Start,
        kafka: InKafka<'_>,
        store: &dyn CheckpointStore,
        limit: Duration,
        log: &Logger,
    ) -> Result<Start> {
        let InKafka { positions, transactions } = kafka;
        let cluster = start.from.system_id;
        if let Some(transactions) = transactions {
            transactions.begin_session(cluster).await?;
            let Some(position) = positions.read(cluster).await? else { return Ok(start) };
            self.check(&start, &position, positions.describe(), limit, log).await?;
            return later_start(start, position, store, log).await;
        }
        let moving = async {
            if !positions.exist().await? {
                return Ok(None);
            }
            let Some(position) = positions.read(cluster).await? else { return Ok(None) };
            self.check(&start, &position, positions.describe(), limit, log).await?;
            Ok(Some(position))
        };
        let start = match moving.await {
            Ok(None) => return Ok(start),
            Ok(Some(position)) => later_start(start, position, store, log).await?,
            Err(error) => {
                let error: Error = error;
                if error.is_transient() {
                    return Err(error);
                }
                warn!(log, "the position of exactly-once is ignored"; "error" => %error);
                if error.kind() == ErrorKind::KafkaRefused {
                    return Ok(start);
                }
                start
            }
        };
        if let Err(error) = positions.forget(cluster).await {
            warn!(log, "the position of exactly-once stays in Kafka"; "error" => %error);
        }
        Ok(start)
    }

    /// Refuses a position that is not in the server's history.
    async fn check(
        &self,
        start: &Start,
        position: &Position,
        store: String,
        limit: Duration,
        log: &Logger,
    ) -> Result<()> {
        let saved = &position.checkpoint;
        let mut system = SystemId {
            system_id: start.from.system_id,
            timeline: start.from.timeline,
            wal_end: start.wal_end,
            dbname: self.info.dbname().to_owned(),
        };
        let mut history = None;
        // The last writer may have been beyond the WAL's end that was read before.
        if saved.timeline != system.timeline || saved.lsn > system.wal_end {
            let mut replication = self.replication(limit, log).await?;
            system.wal_end = replication.identify_system().await?.wal_end;
            history = super::history(&mut replication, saved, &system, log).await?;
        }
        let (slot_name, database) = (saved.slot.as_str(), self.info.dbname());
        let store_is_replicated = false;
        let rules = StartRules { slot_name, database, store, store_is_replicated, system, history };
        rules.check(saved)
    }
}

/// Moves the start to `position` if that is later. It is saved before the slot can be confirmed.
async fn later_start(
    start: Start,
    position: Position,
    store: &dyn CheckpointStore,
    log: &Logger,
) -> Result<Start> {
    let Position { checkpoint, partial } = position;
    let mut from = start.from.clone();
    if checkpoint.lsn > from.lsn {
        from.lsn = checkpoint.lsn;
        store.save(&from).await?;
    }
    let partial = partial.filter(|partial| partial.final_lsn >= from.lsn);
    info!(log, "position in Kafka"; "lsn" => %checkpoint.lsn, "start" => %from.lsn,
        "events_of_next_transaction" => partial.map(|partial| partial.events));
    Ok(Start { from, partial, ..start })
}
