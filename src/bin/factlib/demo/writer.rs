//! Emits facts at a steady rate, as several applications would.
//!
//! Each writer has its own connection and aggregates, so that the order of an aggregate's facts is
//! the order in which one writer committed them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use actix_rt::task::JoinHandle;
use factlib::{Error, ErrorKind, Result, config::PostgresConfig, emit::Emitter, postgres};
use futures_util::future::select_all;
use slog::Logger;
use tokio::time::sleep_until;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    AGGREGATE_TYPES, SharedLedger,
    ledger::{Aggregate, EmittedFact},
};

const WRITERS: u32 = 4;
/// Aggregates of each type per writer.
const AGGREGATES: u32 = 25;
/// Maximum number of facts in a transaction; the minimum is 1.
const LARGEST_TRANSACTION: u64 = 5;
/// One in this many transactions is rolled back.
const ROLLED_BACK_EVERY: u64 = 20;

/// The writers' tasks, which run until they are stopped.
pub struct Writers {
    tasks: Vec<JoinHandle<Result<()>>>,
    stop: CancellationToken,
}

impl Writers {
    /// Starts writers that together emit `rate` facts per second.
    pub async fn start(
        rate: u32,
        settings: &PostgresConfig,
        ledger: &SharedLedger,
        log: &Logger,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut writers = Writers { tasks: Vec::new(), stop: stop.clone() };
        for index in 0..WRITERS {
            let writer = Writer {
                index,
                pause: Duration::from_secs(1) * WRITERS / rate,
                client: postgres::connect(settings, log).await?,
                emitter: Emitter::new(&settings.message_prefix),
                ledger: ledger.clone(),
                numbers: HashMap::new(),
                facts: 0,
            };
            writers.tasks.push(actix_rt::spawn(writer.run(stop.clone())));
        }
        Ok(writers)
    }

    /// Waits until a writer ends by itself, and returns its result.
    pub async fn ended(&mut self) -> Result<()> {
        if self.tasks.is_empty() {
            return std::future::pending().await;
        }
        let (ended, index, _) = select_all(&mut self.tasks).await;
        drop(self.tasks.remove(index));
        ended.map_err(panicked)?
    }

    /// Stops the writers once each has finished its transaction.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop.cancel();
        let mut result = Ok(());
        for task in self.tasks.drain(..) {
            result = result.and(task.await.map_err(panicked).and_then(|ended| ended));
        }
        result
    }
}

struct Writer {
    index: u32,
    /// Time between two facts.
    pause: Duration,
    client: Client,
    emitter: Emitter,
    ledger: SharedLedger,
    /// Last number of each aggregate.
    numbers: HashMap<Aggregate, u64>,
    facts: u64,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut due = Instant::now();
        for transaction in 1.. {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(due.into()) => {}
            }
            let count = transaction % LARGEST_TRANSACTION + 1;
            due += self.pause * count as u32;
            self.transaction(count, transaction % ROLLED_BACK_EVERY == 0).await?;
        }
        Ok(())
    }

    async fn transaction(&mut self, count: u64, roll_back: bool) -> Result<()> {
        let before = self.numbers.clone();
        let entries: Vec<_> = (0..count).map(|_| self.next()).collect();
        let facts: Vec<_> = entries.iter().map(EmittedFact::fact).collect();
        self.ledger.lock().enter(&entries);
        let transaction = self.client.transaction().await.map_err(failed)?;
        self.emitter.emit_all(&transaction, &facts).await?;
        if roll_back {
            transaction.rollback().await.map_err(failed)?;
            self.ledger.lock().rolled_back(&entries);
            self.numbers = before;
        } else {
            transaction.commit().await.map_err(failed)?;
            self.ledger.lock().committed(&entries);
        }
        Ok(())
    }

    /// Makes the next fact, of another type than the previous one.
    fn next(&mut self) -> EmittedFact {
        self.facts += 1;
        let kind = AGGREGATE_TYPES[(self.facts % AGGREGATE_TYPES.len() as u64) as usize];
        let id = self.index * AGGREGATES + (self.facts / 7 % u64::from(AGGREGATES)) as u32;
        let number = self.numbers.entry((kind, id)).or_default();
        *number += 1;
        let aggregate = (kind, id);
        EmittedFact { id: Uuid::now_v7(), aggregate, number: *number, emitted: Instant::now() }
    }
}

fn failed(error: tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::PostgresUnavailable, "a writer of the demo failed").caused_by(error)
}

fn panicked(error: actix_rt::task::JoinError) -> Error {
    Error::new(ErrorKind::ActorFailed, "a writer of the demo panicked").caused_by(error)
}
