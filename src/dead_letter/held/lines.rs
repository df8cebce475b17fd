//! The operator's side of the table: lists lines, and takes events off their front.

use std::time::{Duration, Instant, SystemTime};

use slog::Logger;
use tokio::time::sleep;
use tokio_postgres::types::{PgLsn, ToSql};

use super::{
    super::{
        letter::{Letter, LetterPosition},
        record::kept_text,
    },
    row::letter,
    schema::HELD_TABLE,
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    config::Config,
    postgres::{Reconnecting, StatementError},
};

const LINES: &str = "\
SELECT aggregate_type, aggregate_id, count(*), min(held_at),
    (array_agg(id ORDER BY commit_lsn, ordinal, id))[1],
    (array_agg(topic ORDER BY commit_lsn, ordinal, id))[1],
    (array_agg(event_id ORDER BY commit_lsn, ordinal, id))[1],
    (array_agg(error ORDER BY commit_lsn, ordinal, id))[1]
FROM factlib.held_events WHERE slot = $1
GROUP BY aggregate_type, aggregate_id ORDER BY min(held_at), aggregate_type, aggregate_id";

/// The line that a row is in.
const LINE_OF: &str = "\
SELECT aggregate_type, aggregate_id FROM factlib.held_events WHERE slot = $1 AND id = $2";

/// `$2` and `$3` are the aggregate, `$4` the position up to which events count. A
/// non-transactional message, which has the number 0, ends there; a transaction's commit begins there.
const NEXT: &str = "\
SELECT id, held_at, key, value, headers
FROM factlib.held_events WHERE slot = $1 AND aggregate_type = $2 AND aggregate_id = $3
    AND (commit_lsn, ordinal) < ($4, 1)
ORDER BY commit_lsn, ordinal, id OFFSET $5 LIMIT $6";

const COUNT: &str = "\
SELECT count(*) FROM factlib.held_events
WHERE slot = $1 AND aggregate_type = $2 AND aggregate_id = $3";

const REMOVE: &str = "DELETE FROM factlib.held_events WHERE slot = $1 AND id = $2 RETURNING 1";

const REFUSED: &str = "UPDATE factlib.held_events SET error = $3 WHERE slot = $1 AND id = $2";

const OF_EVENT: &str = "\
SELECT id, held_at, key, value, headers
FROM factlib.held_events WHERE slot = $1 AND event_id = $2 ORDER BY id";

const EVENT_IDS: &str = "SELECT event_id FROM factlib.held_events WHERE slot = $1";

const ONE: &str = "\
SELECT id, held_at, key, value, headers
FROM factlib.held_events WHERE slot = $1 AND id = $2";

const CONFIRMED: &str = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1";

/// A position behind all events.
const EVERYTHING: Lsn = Lsn::new(u64::MAX);

/// Time for which an event waits to be confirmed, with exactly-once.
const CONFIRM_TIME: Duration = Duration::from_secs(20);

/// Pause between two looks at the confirmed position.
const CONFIRM_PAUSE: Duration = Duration::from_millis(250);

/// The held events of a slot, in the table `factlib.held_events`.
pub struct HeldLines {
    pub(super) slot: String,
    /// True if missing tables may be created.
    pub(super) create: bool,
    pub(super) connection: Reconnecting,
    /// The server with the slot, if events may be in the table before they are confirmed.
    slot_server: Option<Reconnecting>,
}

/// The held events of one aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldLine {
    /// Type of the aggregate.
    pub aggregate_type: String,
    /// Id of the aggregate.
    pub aggregate_id: String,
    /// Number of events.
    pub events: u64,
    /// Time since when the aggregate is held.
    pub since: SystemTime,
    /// Position of the first event.
    pub first: LetterPosition,
    /// Topic of the first event; empty if it has none.
    pub topic: String,
    /// Id of the first event.
    pub event_id: String,
    /// Error of the first event; none if it only waited, because the one before it was dropped.
    pub error: Option<String>,
}

impl HeldLines {
    /// Uses the table; nothing is connected yet.
    ///
    /// # Errors
    /// The connection's settings are wrong.
    pub fn new(config: &Config, log: &Logger) -> Result<Self> {
        let settings = &config.postgres;
        let info = settings.writing_info(&settings.connect_info()?)?;
        let timeout = settings.connect_timeout;
        let connection = Reconnecting::new(info, timeout, log.clone());
        let slot_server = match config.is_exactly_once() {
            true => Some(Reconnecting::new(settings.connect_info()?, timeout, log.clone())),
            false => None,
        };
        let (slot, create) = (settings.slot.clone(), settings.create);
        Ok(HeldLines { slot, create, connection, slot_server })
    }

    /// Lists the lines, the oldest first; none if there is no table.
    ///
    /// # Errors
    /// The database can't be reached or refuses the user.
    pub async fn lines(&self) -> Result<Vec<HeldLine>> {
        let rows = match self.connection.run(LINES, &[&self.slot]).await {
            Err(error) if error.is_missing_table() => return Ok(Vec::new()),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        let read = |row: &tokio_postgres::Row| -> Result<HeldLine, tokio_postgres::Error> {
            let events: i64 = row.try_get(2)?;
            Ok(HeldLine {
                aggregate_type: row.try_get(0)?,
                aggregate_id: row.try_get(1)?,
                events: events.try_into().unwrap_or_default(),
                since: row.try_get(3)?,
                first: LetterPosition::held(row.try_get(4)?),
                topic: row.try_get(5)?,
                event_id: row.try_get(6)?,
                error: row.try_get(7)?,
            })
        };
        rows.iter().map(|row| read(row).map_err(unreadable)).collect()
    }

    /// Type and id of the aggregate in whose line this event waits; none if it is not held.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub async fn aggregate_of(&self, position: LetterPosition) -> Result<Option<(String, String)>> {
        let rows = match self.connection.run(LINE_OF, &[&self.slot, &position.offset]).await {
            Err(error) if error.is_missing_table() => return Ok(None),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        let Some(row) = rows.first() else { return Ok(None) };
        let aggregate = row.try_get(0).and_then(|kind| Ok((kind, row.try_get(1)?)));
        aggregate.map(Some).map_err(unreadable)
    }

    /// A held event, by its position; none if it is not in the table.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub async fn letter(&self, position: LetterPosition) -> Result<Option<Letter>> {
        let rows = match self.connection.run(ONE, &[&self.slot, &position.offset]).await {
            Err(error) if error.is_missing_table() => return Ok(None),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        rows.first().map(letter).transpose().map_err(unreadable)
    }

    /// The rows of an event, as letters: one for each topic that it waits for.
    pub(crate) async fn of_event(&self, event_id: &str) -> Result<Vec<Letter>> {
        let rows = match self.connection.run(OF_EVENT, &[&self.slot, &kept_text(event_id)]).await {
            Err(error) if error.is_missing_table() => return Ok(Vec::new()),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        rows.iter().map(|row| letter(row).map_err(unreadable)).collect()
    }

    /// The ids of all held events.
    pub(crate) async fn event_ids(&self) -> Result<Vec<String>> {
        let rows = match self.connection.run(EVENT_IDS, &[&self.slot]).await {
            Err(error) if error.is_missing_table() => return Ok(Vec::new()),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        rows.iter().map(|row| row.try_get(0).map_err(unreadable)).collect()
    }

    /// The first events of a line, at most this many, or those that are `behind` so many others.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub async fn next(&self, line: (&str, &str), behind: u64, most: u32) -> Result<Vec<Letter>> {
        self.next_before(EVERYTHING, line, behind, most).await
    }

    /// The first events of a line that the relay has confirmed, at most this many; none if the line is
    /// empty. With exactly-once, only confirmed events may be sent: those before them are in Kafka or
    /// in this table, and nothing comes in front of them any more.
    ///
    /// # Errors
    /// [`ErrorKind::RecordBlocked`] if it takes too long: the relay may have ended before that.
    pub async fn next_confirmed(&self, line: (&str, &str), most: u32) -> Result<Vec<Letter>> {
        let began = Instant::now();
        loop {
            // Asked before the line is read: what is below it can't change then.
            let confirmed = self.confirmed().await?;
            let next = self.next_before(confirmed, line, 0, most).await?;
            if !next.is_empty() {
                return Ok(next);
            }
            let waits = self.next(line, 0, 1).await?;
            let Some(first) = waits.first() else { return Ok(next) };
            if began.elapsed() >= CONFIRM_TIME {
                let what = format!("the relay has not confirmed {} yet", first.position);
                return Err(Error::new(ErrorKind::RecordBlocked, what).remedy(
                    "start the relay: events before it may not be in Kafka; then redrive again",
                ));
            }
            sleep(CONFIRM_PAUSE).await;
        }
    }

    /// The position that the relay has confirmed; the highest one where events are in the table only
    /// after those before them are in Kafka.
    async fn confirmed(&self) -> Result<Lsn> {
        let Some(server) = &self.slot_server else { return Ok(EVERYTHING) };
        let rows = server.run(CONFIRMED, &[&self.slot]).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        let confirmed: Option<PgLsn> = rows.first().and_then(|row| row.try_get(0).ok());
        Ok(confirmed.map_or(Lsn::ZERO, |lsn| Lsn::new(lsn.into())))
    }

    async fn next_before(
        &self,
        end: Lsn,
        (aggregate_type, aggregate_id): (&str, &str),
        behind: u64,
        most: u32,
    ) -> Result<Vec<Letter>> {
        let end = PgLsn::from(end.as_u64());
        let (behind, most) = (i64::try_from(behind).unwrap_or(i64::MAX), i64::from(most));
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&self.slot, &aggregate_type, &aggregate_id, &end, &behind, &most];
        let rows = match self.connection.run(NEXT, &parameters).await {
            Err(error) if error.is_missing_table() => return Ok(Vec::new()),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        rows.iter().map(|row| letter(row).map_err(unreadable)).collect()
    }

    /// The number of events of a line that one redrive sends: with exactly-once those that are in it
    /// now, since each has to be confirmed first, and others may join all the time; else all.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub async fn at_most(&self, (aggregate_type, aggregate_id): (&str, &str)) -> Result<u64> {
        if self.slot_server.is_none() {
            return Ok(u64::MAX);
        }
        let rows = self.connection.run(COUNT, &[&self.slot, &aggregate_type, &aggregate_id]).await;
        let rows = match rows {
            Err(error) if error.is_missing_table() => return Ok(0),
            rows => rows.map_err(|error| self.failed(error))?,
        };
        let count: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }

    /// Takes an event out of its line without sending it; true if it was there.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub async fn remove(&self, position: LetterPosition) -> Result<bool> {
        let rows = self.connection.run(REMOVE, &[&self.slot, &position.offset]).await;
        Ok(!rows.map_err(|error| self.failed(error))?.is_empty())
    }

    /// Notes why the first event of a line was refused again.
    pub(crate) async fn refused(&self, position: LetterPosition, error: &Error) -> Result<()> {
        let text = error.to_string().replace('\0', "\u{fffd}");
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.slot, &position.offset, &text];
        let noted = self.connection.run(REFUSED, &parameters).await;
        noted.map(|_| ()).map_err(|error| self.failed(error))
    }

    pub(super) fn failed(&self, error: StatementError) -> Error {
        let what = format!("cannot use {HELD_TABLE} in {}", self.connection.describe());
        let kind = error.kind();
        let grant = "GRANT USAGE ON SCHEMA factlib, and SELECT, UPDATE and DELETE on \
                     factlib.held_events, and SELECT and INSERT on factlib.redriven to this user";
        error.explained(kind, what, grant)
    }
}

pub(super) fn unreadable(error: tokio_postgres::Error) -> Error {
    let what = format!("{HELD_TABLE} is not as `factlib setup` makes it");
    Error::new(ErrorKind::PostgresRefused, what).caused_by(error)
}
