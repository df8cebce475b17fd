//! The table of receipts in the source database: writes, finds and removes rows.

use std::{collections::HashMap, time::Duration};

use factlib_postgres::ConnectInfo;
use slog::Logger;
use tokio_postgres::{
    Row,
    types::{PgLsn, ToSql},
};

use super::receipt::{Fate, Receipt, RecordPlace};
use crate::{
    Error, ErrorKind, Lsn, Result,
    dead_letter::kept_text,
    postgres::{GRANT_ALL, Reconnecting, StatementError},
};

/// The table.
pub(crate) const TABLE: &str = "factlib.receipts";

/// SQL that creates the table; running it again changes nothing.
///
/// `topic` is empty for an event that is not sent, and `intended_topic` for one that is not parked,
/// or parked for an unknown topic. It is part of the key because several topics may refuse an event,
/// and all its letters are in the dead-letter topic. `record_partition` is NULL for an event that
/// has no record, and `record_offset` too where the broker had forgotten it.
pub(crate) const CREATE_TABLE: &str = "\
CREATE SCHEMA IF NOT EXISTS factlib;
CREATE TABLE IF NOT EXISTS factlib.receipts (
    event_id text NOT NULL,
    slot text NOT NULL,
    topic text NOT NULL,
    fate text NOT NULL,
    record_partition integer,
    record_offset bigint,
    lsn pg_lsn NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    route integer,
    error text,
    intended_topic text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (event_id, slot, topic, intended_topic)
);
CREATE INDEX IF NOT EXISTS receipts_at ON factlib.receipts (at);
";

/// SQL that writes rows. An event that is sent again has the row of its last record.
const WRITE: &str = "\
INSERT INTO factlib.receipts AS old (event_id, slot, topic, fate, record_partition, record_offset,
    lsn, aggregate_type, aggregate_id, route, error, intended_topic, at)
SELECT event_id, $1, topic, fate, record_partition, record_offset, lsn, aggregate_type,
    aggregate_id, route, error, intended_topic, timestamptz 'epoch' + at_ms * interval '1 ms'
FROM unnest($2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::pg_lsn[],
    $8::text[], $9::text[], $10::integer[], $11::text[], $12::text[], $13::bigint[])
AS receipts (event_id, topic, fate, record_partition, record_offset, lsn, aggregate_type,
    aggregate_id, route, error, intended_topic, at_ms)
ON CONFLICT (event_id, slot, topic, intended_topic) DO UPDATE SET fate = excluded.fate,
    record_partition = excluded.record_partition, record_offset = excluded.record_offset,
    lsn = excluded.lsn, route = excluded.route, error = excluded.error, at = excluded.at";

const FIND: &str = "\
SELECT slot, topic, fate, record_partition, record_offset, lsn, aggregate_type, aggregate_id, route,
    error, intended_topic, (extract(epoch FROM at) * 1000)::bigint
FROM factlib.receipts WHERE event_id = $1 ORDER BY at, topic, intended_topic";

const REMOVE: &str = "\
WITH removed AS (
    DELETE FROM factlib.receipts WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM factlib.receipts
        WHERE at < now() - $1::bigint * interval '1 ms' AND slot = $2 LIMIT $3
    )) RETURNING 1
)
SELECT count(*) FROM removed";

/// Most rows that one statement removes.
const REMOVED_ROWS: i64 = 10_000;

/// The table `factlib.receipts` in the source database.
pub(crate) struct ReceiptTable {
    slot: String,
    create: bool,
    connection: Reconnecting,
    /// Removing rows must not hold writes back.
    removing: Reconnecting,
}

impl ReceiptTable {
    /// Uses the table, which is created at the start if `create` is set.
    pub fn new(
        slot: String,
        create: bool,
        info: ConnectInfo,
        timeout: Duration,
        log: Logger,
    ) -> Self {
        let removing = Reconnecting::new(info.clone(), timeout, log.clone());
        ReceiptTable { slot, create, connection: Reconnecting::new(info, timeout, log), removing }
    }

    /// Creates the table if it is missing and that is wanted.
    ///
    /// # Errors
    /// Without the table, the relay can't start.
    pub async fn prepare(&self) -> Result<()> {
        if self.create {
            return self.create().await;
        }
        let exists = self.connection.tables_exist(&[TABLE]).await;
        if exists.map_err(|error| self.failed("cannot look up", error))? {
            return Ok(());
        }
        let what = format!("there is no table factlib.receipts in {}", self.connection.describe());
        let error = Error::new(ErrorKind::PostgresRefused, what);
        Err(error.remedy("run `factlib setup` to create it"))
    }

    /// Creates the table if it is missing.
    pub async fn create(&self) -> Result<()> {
        let created = self.connection.create_tables(&[TABLE], CREATE_TABLE).await;
        created.map_err(|error| self.failed("cannot create", error))
    }

    /// Writes receipts in one statement. Of several receipts of an event with the same topics, the
    /// last one counts.
    pub async fn write(&self, receipts: impl Iterator<Item = Receipt>) -> Result<()> {
        let mut rows: HashMap<(String, String, String), NewRow> = HashMap::new();
        for receipt in receipts {
            let row = NewRow::from(receipt);
            let key = (row.event_id.clone(), row.topic.clone(), row.intended_topic.clone());
            rows.insert(key, row);
        }
        let rows: Vec<NewRow> = rows.into_values().collect();
        fn column<'a, T>(rows: &'a [NewRow], of: impl Fn(&'a NewRow) -> T) -> Vec<T> {
            rows.iter().map(of).collect()
        }
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &self.slot,
            &column(&rows, |row| &row.event_id),
            &column(&rows, |row| &row.topic),
            &column(&rows, |row| row.fate),
            &column(&rows, |row| row.partition),
            &column(&rows, |row| row.offset),
            &column(&rows, |row| row.lsn),
            &column(&rows, |row| &row.aggregate_type),
            &column(&rows, |row| &row.aggregate_id),
            &column(&rows, |row| row.route),
            &column(&rows, |row| &row.error),
            &column(&rows, |row| &row.intended_topic),
            &column(&rows, |row| row.at_ms),
        ];
        let written = self.connection.run(WRITE, parameters).await;
        written.map(drop).map_err(|error| self.failed("cannot write", error))
    }

    /// Finds the receipts of an event, of every slot.
    pub async fn find(&self, event_id: &str) -> Result<Vec<Receipt>> {
        let event_id = kept_text(event_id);
        let rows = self.connection.run(FIND, &[&event_id]).await;
        let rows = rows.map_err(|error| self.failed("cannot read", error))?;
        let read = rows.iter().map(|row| receipt(&event_id, row)).collect::<Result<Vec<_>, _>>();
        read.map(|all| all.into_iter().flatten().collect()).map_err(|error| {
            let what = "a row of factlib.receipts is not readable";
            Error::new(ErrorKind::Protocol, what).caused_by(error)
        })
    }

    /// Removes this slot's receipts that are older than `age`; returns their number.
    pub async fn remove_older(&self, age: Duration) -> Result<u64> {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut removed = 0;
        loop {
            let rows = self.removing.run(REMOVE, &[&age_ms, &self.slot, &REMOVED_ROWS]).await;
            let rows = rows.map_err(|error| self.failed("cannot remove old rows of", error))?;
            let count: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
            removed += count.unsigned_abs();
            if count < REMOVED_ROWS {
                return Ok(removed);
            }
        }
    }

    fn failed(&self, what: &str, error: StatementError) -> Error {
        let what = format!("{what} table factlib.receipts of {}", self.connection.describe());
        let kind = error.kind();
        error.explained(kind, what, GRANT_ALL)
    }
}

/// A row to be written.
struct NewRow {
    event_id: String,
    topic: String,
    fate: &'static str,
    partition: Option<i32>,
    offset: Option<i64>,
    lsn: PgLsn,
    aggregate_type: String,
    aggregate_id: String,
    route: Option<i32>,
    error: Option<String>,
    intended_topic: String,
    at_ms: i64,
}

const DELIVERED: &str = "delivered";
const FILTERED: &str = "filtered";
const PARKED: &str = "parked";

impl From<Receipt> for NewRow {
    fn from(receipt: Receipt) -> Self {
        let (fate, record, route, error, intended_topic) = match receipt.fate {
            Fate::Delivered(record) => (DELIVERED, Some(record), None, None, None),
            Fate::Filtered { route } => {
                let route = route.and_then(|route| i32::try_from(route).ok());
                (FILTERED, None, route, None, None)
            }
            Fate::Parked { record, error, intended_topic } => {
                (PARKED, record, None, Some(error), intended_topic)
            }
        };
        let place = record.as_ref().map(|record| (record.partition, record.offset));
        NewRow {
            event_id: receipt.event_id,
            topic: record.map(|record| record.topic).unwrap_or_default(),
            fate,
            partition: place.map(|(partition, _)| partition),
            offset: place.and_then(|(_, offset)| offset),
            lsn: receipt.lsn.as_u64().into(),
            aggregate_type: receipt.aggregate_type.unwrap_or_default(),
            aggregate_id: receipt.aggregate_id.unwrap_or_default(),
            route,
            error,
            intended_topic: intended_topic.unwrap_or_default(),
            at_ms: receipt.at_ms,
        }
    }
}

/// Reads a row of [`FIND`]; none if its fate is one that this version does not know.
fn receipt(event_id: &str, row: &Row) -> Result<Option<Receipt>, tokio_postgres::Error> {
    let topic: String = row.try_get(1)?;
    let partition: Option<i32> = row.try_get(3)?;
    let offset: Option<i64> = row.try_get(4)?;
    let record = partition.map(|partition| RecordPlace { topic, partition, offset });
    let fate = match (row.try_get::<_, &str>(2)?, record) {
        (DELIVERED, Some(record)) => Fate::Delivered(record),
        (FILTERED, _) => {
            let route: Option<i32> = row.try_get(8)?;
            Fate::Filtered { route: route.and_then(|route| usize::try_from(route).ok()) }
        }
        (PARKED, record) => Fate::Parked {
            record,
            error: row.try_get::<_, Option<String>>(9)?.unwrap_or_default(),
            intended_topic: Some(row.try_get(10)?).filter(|topic: &String| !topic.is_empty()),
        },
        _ => return Ok(None),
    };
    Ok(Some(Receipt {
        event_id: event_id.to_owned(),
        slot: row.try_get(0)?,
        lsn: Lsn::new(row.try_get::<_, PgLsn>(5)?.into()),
        at_ms: row.try_get(11)?,
        aggregate_type: Some(row.try_get(6)?),
        aggregate_id: Some(row.try_get(7)?),
        fate,
    }))
}
