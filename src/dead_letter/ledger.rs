//! Records in PostgreSQL which letters were redriven, and reads the bytes of those that no topic took.

use std::{collections::HashMap, time::SystemTime};

use bytes::Bytes;
use slog::Logger;
use tokio_postgres::{
    Row,
    types::{PgLsn, ToSql},
};

use super::{
    letter::{Letter, LetterPosition},
    schema::{self, TABLE},
};
use crate::{
    Error, ErrorKind, Result,
    config::Config,
    postgres::{Reconnecting, StatementError},
};

const LOAD: &str = "\
SELECT partition, record_offset, parked_ms, redriven_at FROM factlib.redriven WHERE topic = $1";

const REMEMBER: &str = "\
INSERT INTO factlib.redriven (topic, partition, record_offset, parked_ms, event_id, redriven_to)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (topic, partition, record_offset, parked_ms)
DO UPDATE SET redriven_to = excluded.redriven_to, redriven_at = excluded.redriven_at
RETURNING redriven_at";

const MARK: &str = "\
UPDATE factlib.dead_letters SET redriven_at = now() WHERE slot = $1 AND lsn = $2 AND event_id = $3";

/// Finds the row; another slot's will do, because a position of the WAL holds the same for both.
const FIND: &str = "\
SELECT slot, octet_length(bytes)::bigint FROM factlib.dead_letters
WHERE lsn = $1 AND event_id = $2 ORDER BY slot = $3 DESC LIMIT 1";

const BYTES: &str = "\
SELECT bytes FROM factlib.dead_letters WHERE slot = $1 AND lsn = $2 AND event_id = $3";

/// The tables `factlib.redriven` and `factlib.dead_letters` of the database that is read.
pub struct Ledger {
    topic: String,
    slot: String,
    create: bool,
    connection: Reconnecting,
    /// Time of redriving, by position and time of parking.
    redriven: HashMap<(LetterPosition, i64), SystemTime>,
}

/// Where the table has a letter's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Slot of the row.
    pub slot: String,
    /// Number of bytes.
    pub bytes: usize,
}

impl Ledger {
    /// Reads which letters were redriven; none if the tables do not exist.
    ///
    /// # Errors
    /// The database can't be reached or refuses the user.
    pub async fn open(config: &Config, log: &Logger) -> Result<Self> {
        let settings = &config.postgres;
        let info = settings.writing_info(&settings.connect_info()?)?;
        let timeout = settings.connect_timeout;
        let mut ledger = Ledger {
            topic: config.dead_letter_topic(),
            slot: settings.slot.clone(),
            create: settings.create,
            connection: Reconnecting::new(info, timeout, log.clone()),
            redriven: HashMap::new(),
        };
        let rows = match ledger.connection.run(LOAD, &[&ledger.topic]).await {
            Err(error) if error.is_missing_table() => Vec::new(),
            rows => rows.map_err(|error| ledger.failed("cannot read factlib.redriven", error))?,
        };
        for row in rows {
            let read = || -> Result<_, tokio_postgres::Error> {
                let (partition, offset) = (row.try_get(0)?, row.try_get(1)?);
                let position = LetterPosition { partition, offset };
                Ok(((position, row.try_get(2)?), row.try_get(3)?))
            };
            let (letter, at) = read().map_err(unreadable)?;
            ledger.redriven.insert(letter, at);
        }
        Ok(ledger)
    }

    /// Time at which the letter was redriven, if it was.
    pub fn redriven_at(&self, letter: &Letter) -> Option<SystemTime> {
        self.redriven.get(&(letter.position, letter.parked_ms())).copied()
    }

    /// Looks up the letter's bytes in the table; none if they are not there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn kept(&self, letter: &Letter) -> Result<Option<Kept>> {
        let Some(lsn) = lsn(letter).filter(|_| letter.is_kept_in_table()) else { return Ok(None) };
        let parameters: &[&(dyn ToSql + Sync)] = &[&lsn, &event_id(letter), &self.slot];
        let rows = match self.connection.run(FIND, parameters).await {
            Err(error) if error.is_missing_table() => return Ok(None),
            rows => rows.map_err(|error| self.failed("cannot read factlib.dead_letters", error))?,
        };
        let read = |row: &Row| -> Result<Kept, tokio_postgres::Error> {
            let bytes: i64 = row.try_get(1)?;
            Ok(Kept { slot: row.try_get(0)?, bytes: bytes.try_into().unwrap_or_default() })
        };
        rows.first().map(read).transpose().map_err(unreadable)
    }

    /// Returns the event's bytes, from the letter or from the table.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`ErrorKind::RecordRefused`] if the table no longer has them.
    pub async fn bytes(&self, letter: &Letter) -> Result<Option<Bytes>> {
        if !letter.is_kept_in_table() {
            return Ok(letter.value.clone());
        }
        let gone = || {
            let what = format!("the bytes of {} are not in {TABLE}", letter.position);
            Error::new(ErrorKind::RecordRefused, what)
                .remedy("were they deleted, or is this another database than the relay's?")
        };
        let kept = self.kept(letter).await?.ok_or_else(gone)?;
        let (lsn, id) = (lsn(letter), event_id(letter));
        let rows = self.connection.run(BYTES, &[&kept.slot, &lsn, &id]).await;
        let rows = rows.map_err(|error| self.failed("cannot read factlib.dead_letters", error))?;
        let row = rows.first().ok_or_else(gone)?;
        let bytes: &[u8] = row.try_get(0).map_err(unreadable)?;
        Ok(Some(Bytes::copy_from_slice(bytes)))
    }

    /// Makes sure that the tables exist, before anything is sent.
    pub(super) async fn ensure_tables(&self) -> Result<()> {
        let prepared = schema::ensure(&self.connection, self.create).await;
        match prepared.map_err(|error| self.failed("cannot create factlib.redriven", error))? {
            true => Ok(()),
            false => Err(schema::missing()),
        }
    }

    /// Records that Kafka acknowledged the letter.
    pub(super) async fn record_redriven(&mut self, letter: &Letter, to: &str) -> Result<()> {
        let LetterPosition { partition, offset } = letter.position;
        let (parked_ms, id) = (letter.parked_ms(), event_id(letter));
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&self.topic, &partition, &offset, &parked_ms, &id, &to];
        let what = format!("{} was sent, but that can't be recorded", letter.position);
        let rows = self.connection.run(REMEMBER, parameters).await;
        let rows = rows.map_err(|error| self.failed(&what, error))?;
        let at = rows.first().map(|row| row.try_get(0)).transpose().map_err(unreadable)?;
        if let Some(at) = at {
            self.redriven.insert((letter.position, parked_ms), at);
        }
        if let Some(kept) = self.kept(letter).await? {
            let marked = self.connection.run(MARK, &[&kept.slot, &lsn(letter), &id]).await;
            marked.map_err(|error| self.failed(&what, error))?;
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: StatementError) -> Error {
        let what = format!("{what} in {}", self.connection.describe());
        let kind = error.kind();
        let grant = "GRANT USAGE ON SCHEMA factlib, SELECT and UPDATE on factlib.dead_letters, and \
                     SELECT, INSERT and UPDATE on factlib.redriven to this user";
        error.explained(kind, what, grant)
    }
}

fn lsn(letter: &Letter) -> Option<PgLsn> {
    letter.lsn().map(|lsn| PgLsn::from(lsn.as_u64()))
}

/// Returns the event id as the table has it. Letters of other programs may have a NUL, which
/// PostgreSQL does not accept in texts.
fn event_id(letter: &Letter) -> String {
    letter.event_id().replace('\0', "\u{fffd}")
}

fn unreadable(error: tokio_postgres::Error) -> Error {
    let what = "factlib.redriven or factlib.dead_letters is not as `factlib setup` makes it";
    Error::new(ErrorKind::PostgresRefused, what).caused_by(error)
}
