//! The relay's side of the table: loads the aggregates that are held, and writes events behind them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio_postgres::types::ToSql;

use super::{
    super::record::kept_text,
    row::NewRows,
    schema::{CREATE_HELD_EVENTS, HELD_TABLE},
};
use crate::{
    Error, ErrorKind, Event, Result,
    event::StreamPosition,
    postgres::{GRANT_ALL, Reconnecting, StatementError},
};

/// Number of aggregates that one statement loads.
const PAGE: i64 = 10_000;

const AGGREGATES: &str = "\
SELECT DISTINCT aggregate_type, aggregate_id FROM factlib.held_events
WHERE slot = $1 AND (aggregate_type, aggregate_id) > ($2, $3)
ORDER BY aggregate_type, aggregate_id LIMIT $4";

const SUMMARY: &str = "\
SELECT count(*), count(DISTINCT (aggregate_type, aggregate_id)), min(held_at)
FROM factlib.held_events WHERE slot = $1";

/// Writes the events that were refused, and those others whose line has a row; the row is locked, so
/// that it is not deleted before this is committed. Without room, none is written that is not there
/// already. Returns how many are new, how many were written, and the numbers of those without a line,
/// from 1.
const WRITE: &str = "\
WITH input AS (
    SELECT * FROM unnest(
        $2::text[], $3::text[], $4::pg_lsn[], $5::bigint[], $6::text[], $7::text[], $8::text[],
        $9::bytea[], $10::bytea[], $11::bytea[]
    ) WITH ORDINALITY AS t (
        aggregate_type, aggregate_id, commit_lsn, ordinal, event_id, topic, error, key, value, headers,
        number
    )
), standing AS (
    SELECT waiting.aggregate_type, waiting.aggregate_id
    FROM (SELECT DISTINCT aggregate_type, aggregate_id FROM input WHERE error IS NULL) AS waiting,
    LATERAL (
        SELECT FROM factlib.held_events AS held
        WHERE held.slot = $1 AND held.aggregate_type = waiting.aggregate_type
          AND held.aggregate_id = waiting.aggregate_id
        LIMIT 1 FOR KEY SHARE
    ) AS locked
), lines AS (
    SELECT aggregate_type, aggregate_id FROM input WHERE error IS NOT NULL
    UNION SELECT aggregate_type, aggregate_id FROM standing
), new AS (
    SELECT input.* FROM input JOIN lines USING (aggregate_type, aggregate_id)
    WHERE NOT EXISTS (
        SELECT FROM factlib.held_events AS held
        WHERE held.slot = $1 AND held.commit_lsn = input.commit_lsn
          AND held.ordinal = input.ordinal AND held.topic = input.topic
    )
), written AS (
    INSERT INTO factlib.held_events (
        slot, aggregate_type, aggregate_id, commit_lsn, ordinal, event_id, topic, error, key, value,
        headers
    )
    SELECT $1, aggregate_type, aggregate_id, commit_lsn, ordinal, event_id, topic, error, key, value,
        headers
    FROM new WHERE $12 ORDER BY number
    ON CONFLICT (slot, commit_lsn, ordinal, topic) DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM new), (SELECT count(*) FROM written),
    ARRAY (
        SELECT number FROM input LEFT JOIN lines USING (aggregate_type, aggregate_id)
        WHERE lines.aggregate_type IS NULL ORDER BY number
    )";

/// The table of held events, of one slot.
pub(crate) struct HeldEvents {
    slot: String,
    create: bool,
    limit: u64,
    connection: Reconnecting,
    /// Rows of the slot, as of the last count and with those written since.
    count: AtomicU64,
    /// Number of the last load; whoever writes for an earlier one writes nothing any more.
    loads: tokio::sync::Mutex<u64>,
    /// Events that were refused in a transaction that was aborted.
    pub refused_before: RefusedBefore,
}

/// Result of writing events.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Indexes of events whose aggregate is not held any more, in rising order.
    pub released: Vec<usize>,
}

/// Number and age of the held events of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldSummary {
    pub events: u64,
    pub aggregates: u64,
    pub oldest: Option<SystemTime>,
}

impl HeldEvents {
    /// Uses the table, which is created when first needed if `create` is set. With `limit` events, it
    /// takes no more; the last part that it takes may go beyond.
    pub fn new(slot: String, create: bool, limit: u64, connection: Reconnecting) -> Self {
        HeldEvents {
            slot,
            create,
            limit,
            connection,
            count: AtomicU64::new(0),
            loads: tokio::sync::Mutex::new(0),
            refused_before: RefusedBefore::default(),
        }
    }

    /// Creates the table if it is missing.
    pub async fn create(&self) -> Result<()> {
        let created = self.connection.create_tables(&[HELD_TABLE], CREATE_HELD_EVENTS).await;
        created.map_err(|error| self.failed(error))
    }

    /// Loads the [hashes](aggregate_hash) of all held aggregates. What was to be written for the last
    /// load is not written any more.
    pub async fn load(&self) -> Result<Vec<u64>> {
        // Held to the end: nothing is written meanwhile.
        let mut loads = self.loads.lock().await;
        *loads += 1;
        let (mut hashes, mut last) = (Vec::new(), (String::new(), String::new()));
        loop {
            let parameters: [&(dyn ToSql + Sync); 4] = [&self.slot, &last.0, &last.1, &PAGE];
            let rows = match self.connection.run(AGGREGATES, &parameters).await {
                Err(error) if self.create && error.is_missing_table() => {
                    self.create().await?;
                    Vec::new()
                }
                rows => rows.map_err(|error| self.failed(error))?,
            };
            for row in &rows {
                let aggregate: Result<(String, String), tokio_postgres::Error> =
                    row.try_get(0).and_then(|kind| Ok((kind, row.try_get(1)?)));
                last = aggregate.map_err(unreadable)?;
                hashes.push(aggregate_hash(&last.0, &last.1));
            }
            if (rows.len() as i64) < PAGE {
                break;
            }
        }
        self.summary().await?;
        Ok(hashes)
    }

    /// Number of the last load, for [`write`](Self::write).
    pub async fn last_load(&self) -> u64 {
        *self.loads.lock().await
    }

    /// Writes events that have a refusal, as part of what was begun with this load.
    ///
    /// # Errors
    /// [`ErrorKind::RecordBlocked`] at the limit; [`ErrorKind::CheckpointUnavailable`] if the
    /// database does not take them now.
    pub async fn write(&self, events: &[Event], load: u64) -> Result<Held> {
        let last_load = self.loads.lock().await;
        if *last_load != load {
            let what = "the events are read again and written then";
            return Err(Error::new(ErrorKind::CheckpointUnavailable, what));
        }
        let rows = NewRows::new(events);
        if self.count.load(Relaxed) >= self.limit {
            // Some may have been redriven since.
            self.summary().await?;
        }
        let has_room = self.count.load(Relaxed) < self.limit;
        let parameters: [&(dyn ToSql + Sync); 12] = [
            &self.slot,
            &rows.aggregate_types,
            &rows.aggregate_ids,
            &rows.commit_lsns,
            &rows.ordinals,
            &rows.event_ids,
            &rows.topics,
            &rows.errors,
            &rows.keys,
            &rows.values,
            &rows.headers,
            &has_room,
        ];
        let rows = self.connection.run(WRITE, &parameters).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        let Some(row) = rows.first() else { return Ok(Held::default()) };
        let read = || -> Result<(i64, i64, Vec<i64>), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (new, written, released) = read().map_err(unreadable)?;
        if new > 0 && !has_room {
            return Err(self.full(self.count.load(Relaxed)));
        }
        let written = u64::try_from(written).unwrap_or_default();
        self.count.fetch_add(written, Relaxed);
        let index = |number: i64| usize::try_from(number - 1).unwrap_or_default();
        Ok(Held { released: released.into_iter().map(index).collect() })
    }

    /// Counts the held events.
    pub async fn summary(&self) -> Result<HeldSummary> {
        let rows = self.connection.run(SUMMARY, &[&self.slot]).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        let Some(row) = rows.first() else { return Ok(HeldSummary::default()) };
        let read = || -> Result<(i64, i64, Option<SystemTime>), tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (events, aggregates, oldest) = read().map_err(unreadable)?;
        let events = u64::try_from(events).unwrap_or_default();
        self.count.store(events, Relaxed);
        let aggregates = u64::try_from(aggregates).unwrap_or_default();
        Ok(HeldSummary { events, aggregates, oldest })
    }

    fn full(&self, events: u64) -> Error {
        let what = format!(
            "{HELD_TABLE} has {events} events, and dead_letter.held_limit is {}: nothing more is \
             confirmed",
            self.limit
        );
        Error::new(ErrorKind::RecordBlocked, what).remedy(
            "redrive or drop the lines that `factlib dead-letter list` shows, or raise the limit",
        )
    }

    fn failed(&self, error: StatementError) -> Error {
        let what = format!("cannot hold events in {HELD_TABLE} of {}", self.connection.describe());
        error.explained(ErrorKind::CheckpointUnavailable, what, GRANT_ALL)
    }
}

/// Hash of an aggregate, of the type and id that the table has for it.
pub(crate) fn aggregate_hash(aggregate_type: &str, aggregate_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in [aggregate_type, aggregate_id] {
        match is_kept_whole(text) {
            true => text.hash(&mut hasher),
            false => kept_text(text).hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// True if the table has the text as it is, which is not worth a copy.
fn is_kept_whole(text: &str) -> bool {
    text.len() <= super::super::record::KEPT_TEXT_MAX && !text.as_bytes().contains(&0)
}

/// Events that were refused in a Kafka transaction that was aborted, so that the next chain of actors
/// does not send them again. Shared by all chains.
#[derive(Clone, Default)]
pub(crate) struct RefusedBefore(Arc<Mutex<HashMap<RefusedEvent, Error>>>);

/// Position and topic of an event.
type RefusedEvent = (StreamPosition, Arc<str>);

impl RefusedBefore {
    /// Remembers that the topic refused the event.
    pub fn add(&self, event: &Event, topic: &Arc<str>, error: Error) {
        self.lock().insert(key(event, topic), error);
    }

    /// The error with which the topic refused the event.
    pub fn error(&self, event: &Event, topic: &Arc<str>) -> Option<Error> {
        let refused = self.lock();
        if refused.is_empty() { None } else { refused.get(&key(event, topic)).cloned() }
    }

    /// Forgets an event that is in the table.
    pub fn remove(&self, event: &Event, topic: &Arc<str>) {
        self.lock().remove(&key(event, topic));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RefusedEvent, Error>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(event: &Event, topic: &Arc<str>) -> RefusedEvent {
    (event.stream_position(), Arc::clone(topic))
}

fn unreadable(error: tokio_postgres::Error) -> Error {
    let what = format!("{HELD_TABLE} is not as `factlib setup` makes it");
    Error::new(ErrorKind::CheckpointUnavailable, what).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_has_the_hash_of_what_the_table_has_of_it() {
        let long = "ü".repeat(1_000);
        let kept = kept_text(&long);
        assert_eq!(aggregate_hash("user", &long), aggregate_hash("user", &kept));
        assert_eq!(aggregate_hash("user", "a\0b"), aggregate_hash("user", "a\u{fffd}b"));
        assert_ne!(aggregate_hash("user", "ab"), aggregate_hash("use", "rab"));
    }
}
