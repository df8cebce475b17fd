//! The position that is in Kafka, beside that of the store: the further one counts.

use std::{sync::Arc, time::Duration};

use factlib_postgres::SystemId;
use slog::{Logger, info, warn};

use super::{Start, Startup, position::Position as Judge};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::{CheckpointStore, Position},
    config::Config,
    exactly_once::{Positions, Transactions},
    kafka::{producer::KafkaProducer, unobserved},
};

/// Where positions are in Kafka, and with exactly-once who writes them.
#[derive(Clone, Copy)]
pub(crate) struct InKafka<'a> {
    pub positions: &'a Positions,
    pub transactions: Option<&'a Transactions>,
}

/// Has Kafka forget the position of the slot.
pub(super) async fn forget(config: &Arc<Config>, cluster: u64, log: &Logger) -> Result<()> {
    let window = 1 << 20;
    let asking = KafkaProducer::new(&config.kafka.settings(), window, unobserved(), log.clone())?;
    let positions = Positions::new(config, asking, log.clone());
    match positions.exist().await? {
        true => positions.forget(cluster).await,
        false => Ok(()),
    }
}

impl Startup {
    /// Begins a session of transactions, if these are wanted, and reads the position.
    ///
    /// Nobody else reads the slot. In this order: an instance that still wrote while the position
    /// was read would move it.
    ///
    /// Without transactions, the position moves from Kafka into the store.
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
            positions.create().await?;
            transactions.begin_session(cluster).await?;
            let Some(position) = positions.read(cluster).await? else { return Ok(start) };
            self.check(&start, &position, positions.describe(), limit, log).await?;
            return further(start, position, store, log).await;
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
            Ok(Some(position)) => further(start, position, store, log).await?,
            Err(error) => {
                let error: Error = error;
                if error.is_transient() {
                    return Err(error);
                }
                warn!(log, "the position of exactly-once does not count"; "error" => %error);
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

    /// Refuses a position that the server's history does not have.
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
        // Whoever wrote it last may have been further than the WAL when it was asked for.
        if saved.timeline != system.timeline || saved.lsn > system.wal_end {
            let mut replication = self.replication(limit, log).await?;
            system.wal_end = replication.identify_system().await?.wal_end;
            history = super::history(&mut replication, saved, &system, log).await?;
        }
        let (slot_name, database) = (saved.slot.as_str(), self.info.dbname());
        Judge { slot_name, database, store, system, history }.check(saved)
    }
}

/// The start at `position`, if that is further. The store has it before the slot can.
async fn further(
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
