//! Goes on where another relay stopped, on its slot: events that its topics have are not sent again, all
//! others are.
//!
//! | file | idea |
//! | --- | --- |
//! | `event_id` | the id of an event and of a record |
//! | `delivered` | finds the events that topics have |
//! | `filler` | sends the events that topics lack |
//! | `slot_check` | refuses a slot that can't be taken over |
//! | `report` | what was found and done |
//!
//! # How
//! The slot's confirmed position is behind what the other relay has sent, and what it has sent behind
//! that is not a prefix of the stream: a relay that is killed has some partitions further than others. So
//! the slot is read twice, and nothing is confirmed to it. The first reading looks up each event in the
//! topics. The second goes up to the end of the transaction with the last event that topics have, and
//! sends those before it that they lack. Its position is then saved as the checkpoint.
//!
//! Until then nothing but the topics has changed, and they are read again at each attempt: after a crash
//! the same command goes on.
//!
//! # Memory
//! About 50 bytes for each event behind the slot's position that topics have, the window of the relay for
//! the records in flight, and the ids of `CHUNK_EVENTS` events that wait.

mod delivered;
mod event_id;
mod filler;
mod report;
mod slot_check;

use std::{sync::Arc, time::Duration};

use factlib_postgres::{ReplicationClient, Server, SqlSession};
use slog::Logger;

pub use self::report::{HandoverProgress, HandoverReport};
use self::{
    delivered::{DeliveredEvents, EventIds},
    event_id::EventId,
    filler::Filler,
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    checkpoint::Checkpoint,
    config::{Config, RefusalPolicy},
    outbox::publication::RefuseOn,
    postgres::{server, sql_session},
    replay::RowRecords,
    routing::Decision,
    startup::{Startup, log_findings},
    tail::{Tail, TailSource},
};

/// Events that are looked up in the topics at once.
const CHUNK_EVENTS: usize = 200_000;
/// Events between two reports of progress.
const PROGRESS: u64 = 1_000;

/// How to take over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandoverOptions {
    /// True to take over; otherwise nothing is changed.
    pub take: bool,
    /// Tolerated difference between the clocks of PostgreSQL, of the other relay and of the brokers:
    /// topics are read from this long before the first waiting event.
    pub clocks_differ: Duration,
    /// Header with the event's id in the other relay's records, if it is neither `id` nor `event_id`.
    pub id_header: Option<String>,
    /// Ids of events that are left out, because they can't be sent; the LSN of a row without an id.
    pub left_out: Vec<String>,
    /// The other relay's slot, if it is not the one that is taken over: it must not be in use either.
    pub other_slot: Option<String>,
}

impl Default for HandoverOptions {
    fn default() -> Self {
        HandoverOptions {
            take: false,
            clocks_differ: Duration::from_secs(600),
            id_header: None,
            left_out: Vec::new(),
            other_slot: None,
        }
    }
}

/// Takes over the configured slot, or finds out what that would do.
///
/// # Errors
/// The slot is in use or can't be taken over, a server can't be reached, or an event can't be sent.
pub async fn hand_over(
    config: &Config,
    options: &HandoverOptions,
    log: &Logger,
    tell: &mut dyn FnMut(HandoverProgress),
) -> Result<HandoverReport> {
    Handover::connect(config, options, log).await?.run(tell).await
}

struct Handover<'a> {
    config: &'a Config,
    options: &'a HandoverOptions,
    startup: Startup,
    client: SqlSession,
    server: Server,
    rows: RowRecords,
    log: &'a Logger,
}

impl<'a> Handover<'a> {
    async fn connect(
        config: &'a Config,
        options: &'a HandoverOptions,
        log: &'a Logger,
    ) -> Result<Self> {
        config.validate()?;
        let startup = Startup::new(&Arc::new(config.clone()))?;
        let limit = config.postgres.connect_timeout;
        let client = sql_session(&startup.info, limit, log).await?;
        let server = Server::read(&client).await?;
        server::check(&server, config)?;
        let rows = RowRecords::new(config)?;
        Ok(Handover { config, options, startup, client, server, rows, log })
    }

    async fn run(&self, tell: &mut dyn FnMut(HandoverProgress)) -> Result<HandoverReport> {
        let (other, database) = (self.options.other_slot.as_deref(), self.startup.info.dbname());
        let slot = slot_check::free_slot(&self.client, self.config, other, database).await?;
        let store = self.startup.store(self.log);
        if self.options.take {
            // First: a user without the right to create it has nothing sent.
            store.create().await?;
        }
        let (_, findings) =
            self.startup.publication(&self.client, false, RefuseOn::AnyFinding, self.log).await?;
        log_findings(&findings, self.log);
        let confirmed = slot.confirmed;
        let mut replication = self.replication().await?;
        let from = slot_check::start(
            &self.startup,
            &mut replication,
            &self.client,
            slot,
            self.config,
            self.log,
        )
        .await?;
        // Nobody reads the slot, so no event that topics have is behind this.
        let end = replication.identify_system().await?.wal_end;
        let mut report = HandoverReport {
            slot: self.config.postgres.slot.clone(),
            confirmed,
            from: from.lsn,
            wal_end: end,
            position: from.lsn,
            ..HandoverReport::default()
        };
        let mut tail = self.tail(replication, from.lsn, confirmed).await?;
        let present = self.find_delivered(&mut tail, end, &mut report, tell).await?;
        if !present.is_empty() {
            let received = tail.received();
            tail.finish().await?;
            tail = self.tail(self.replication().await?, from.lsn, confirmed).await?;
            report.position = self.fill(&mut tail, received, present, &mut report, tell).await?;
        }
        // The slot stays in use until the checkpoint is saved.
        if self.options.take {
            let Checkpoint { slot, system_id, timeline, .. } = &from;
            let position = report.position;
            store.save(&Checkpoint::new(slot, *system_id, *timeline, position)).await?;
            report.is_taken = true;
        }
        tail.finish().await?;
        Ok(report)
    }

    async fn replication(&self) -> Result<ReplicationClient> {
        self.startup.replication(self.config.postgres.connect_timeout, self.log).await
    }

    async fn tail(&self, to: ReplicationClient, start: Lsn, confirmed: Lsn) -> Result<Tail> {
        let slot = self.config.postgres.slot.clone();
        let source = TailSource { slot, start, keep: Some(confirmed) };
        let (startup, client) = (&self.startup, &self.client);
        Tail::of_slot(self.config, startup, client, &self.server, to, source, self.log).await
    }

    /// Reads the slot up to `end`, and returns the events in it that the topics have.
    async fn find_delivered(
        &self,
        tail: &mut Tail,
        end: Lsn,
        report: &mut HandoverReport,
        tell: &mut dyn FnMut(HandoverProgress),
    ) -> Result<EventIds> {
        let mut delivered = DeliveredEvents::new(self.config, self.options, self.log);
        let mut chunk = delivered::Wanted::default();
        while let Some(event) = next_before(tail, end).await? {
            report.waiting += 1;
            if let Decision::Records(records) = self.rows.decide(&event) {
                chunk.add(&event, records.iter().map(|(topic, _)| &**topic));
            }
            if report.waiting.is_multiple_of(PROGRESS) {
                tell(HandoverProgress::Waiting(report.waiting));
            }
            if chunk.len() >= CHUNK_EVENTS {
                let looking = delivered.look_up(std::mem::take(&mut chunk), tell);
                tail.while_busy(looking).await??;
            }
        }
        tail.while_busy(delivered.look_up(chunk, tell)).await??;
        delivered.finish(report)
    }

    /// Sends what topics lack before the last event that they have, and returns the position behind it.
    /// Without [`HandoverOptions::take`] it is only counted.
    async fn fill(
        &self,
        tail: &mut Tail,
        end: Lsn,
        mut present: EventIds,
        report: &mut HandoverReport,
        tell: &mut dyn FnMut(HandoverProgress),
    ) -> Result<Lsn> {
        let mut filler = Filler::new(self.config, &self.rows, self.log)?;
        let mut gaps = report::Gaps::default();
        let letters = self.config.dead_letter_topic();
        loop {
            if present.is_empty()
                && let Some(position) = tail.transaction_end()
            {
                tail.while_busy(filler.finish()).await??;
                return Ok(position);
            }
            let Some(event) = tail.step().await? else {
                if !present.is_empty()
                    && tail.received() >= end
                    && tail.is_drained()
                    && tail.transaction_end().is_some()
                {
                    let what = format!("slot {} gives other events than before", report.slot);
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
                continue;
            };
            let is_left_out = self.is_left_out(&event);
            let records = match self.rows.decide(&event) {
                Decision::Records(records) => records,
                Decision::Filtered => continue,
                Decision::Refused(_) | Decision::Stop(_) if is_left_out => continue,
                Decision::Refused(error) | Decision::Stop(error) => {
                    let Some(refusal) = event.refusal().filter(|_| self.parks()) else {
                        return Err(filler::left_out_remedy(&event, error));
                    };
                    report.parked += 1;
                    if self.options.take {
                        let parking = filler.park(&letters, &event, refusal);
                        tail.while_busy(parking).await??;
                    }
                    continue;
                }
            };
            for (topic, outgoing) in records {
                if present.remove(&topic, &EventId::of_event(&event)) {
                    gaps.delivered(&event, report);
                    continue;
                }
                if is_left_out {
                    continue;
                }
                gaps.missing(&event, report);
                if self.options.take {
                    tail.while_busy(filler.send(&topic, &outgoing)).await??;
                }
                if report.missing.is_multiple_of(PROGRESS) {
                    tell(HandoverProgress::Missing(report.missing));
                }
            }
        }
    }

    fn is_left_out(&self, event: &Event) -> bool {
        let is_it = |id: &String| *id == event.id() || *id == event.lsn().to_string();
        self.options.left_out.iter().any(is_it)
    }

    /// True if a row that is no event goes to the dead-letter topic.
    fn parks(&self) -> bool {
        self.config.dead_letter.policy == RefusalPolicy::DeadLetter
    }
}

/// Returns the next event of a transaction that ended before `end`, or soon after it; none when all of them
/// were returned.
async fn next_before(tail: &mut Tail, end: Lsn) -> Result<Option<Event>> {
    loop {
        if tail.received() >= end && tail.is_drained() {
            return Ok(None);
        }
        if let Some(event) = tail.step().await? {
            return Ok(Some(event));
        }
    }
}
