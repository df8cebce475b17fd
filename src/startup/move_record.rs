//! The record of a move to another server: a row of the table `factlib.moves` on both servers.
//!
//! A table, because the relay's start on either server depends on it, wherever the relay runs. A row
//! counts only on the server whose system identifier it has: a subscription or a physical copy may
//! bring the other server's rows.

use factlib_postgres::Lsn;
use tokio_postgres::{
    Client, Row,
    types::{PgLsn, ToSql},
};

use super::position::ACCEPT;
use crate::{Error, ErrorKind, Result, postgres::postgres_error};

const CREATE_TABLE: &str = "\
CREATE SCHEMA IF NOT EXISTS factlib;
CREATE TABLE IF NOT EXISTS factlib.moves (
    system_id text NOT NULL,
    slot text NOT NULL,
    side text NOT NULL,
    stage text NOT NULL,
    other_system_id text NOT NULL,
    other_server text NOT NULL,
    other_slot text NOT NULL,
    slot_created boolean NOT NULL,
    marker pg_lsn,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_id, slot)
);
GRANT SELECT ON factlib.moves TO PUBLIC;
";

const EXISTS: &str = "\
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'factlib' AND c.relname = 'moves')";

const READ: &str = "\
SELECT side, stage, other_system_id, other_server, other_slot, slot_created, marker
FROM factlib.moves WHERE system_id = $1 AND slot = $2";

const WRITE: &str = "\
INSERT INTO factlib.moves AS old
    (system_id, slot, side, stage, other_system_id, other_server, other_slot, slot_created, marker)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (system_id, slot) DO UPDATE
SET side = excluded.side, stage = excluded.stage, other_system_id = excluded.other_system_id,
    other_server = excluded.other_server, other_slot = excluded.other_slot,
    slot_created = excluded.slot_created, marker = excluded.marker, changed_at = now()";

const REMOVE: &str = "DELETE FROM factlib.moves WHERE system_id = $1 AND slot = $2";

/// The role of a server in a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The relay reads it before the move.
    Old,
    /// The relay reads it after the move.
    New,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The new server has a slot; the relay still reads the old server.
    Prepared,
    /// Every event of the old server is delivered; the relay may read the new one.
    Finished,
    /// The old server's slot is dropped. Only on the old server.
    Closed,
}

/// A move, as one of its servers has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MoveRecord {
    pub system_id: u64,
    pub slot: String,
    pub side: Side,
    pub stage: Stage,
    pub other_system_id: u64,
    /// The other server's address and database.
    pub other_server: String,
    pub other_slot: String,
    /// True if the move created the slot of this server.
    pub slot_created: bool,
    /// On the old server: everything up to here was committed before the hand-over.
    pub marker: Option<Lsn>,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Old => "old",
            Side::New => "new",
        }
    }
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Prepared => "prepared",
            Stage::Finished => "finished",
            Stage::Closed => "closed",
        }
    }
}

impl MoveRecord {
    /// Creates the table if it is missing.
    pub async fn create_table(client: &Client) -> Result<()> {
        // Look first: IF NOT EXISTS requires the right to create even if nothing is missing.
        if exists(client).await? {
            return Ok(());
        }
        let created = client.batch_execute(CREATE_TABLE).await;
        created.map_err(|error| postgres_error("cannot create table factlib.moves", error))
    }

    /// Reads the record of a slot; none if there is no move.
    pub async fn read(client: &Client, system_id: u64, slot: &str) -> Result<Option<Self>> {
        if !exists(client).await? {
            return Ok(None);
        }
        let row = client.query_opt(READ, &[&system_id.to_string(), &slot]).await;
        let row = row.map_err(|error| postgres_error("cannot read table factlib.moves", error))?;
        let parse = |row: &Row| MoveRecord::parse(row, system_id, slot);
        row.as_ref().map(parse).transpose()
    }

    fn parse(row: &Row, system_id: u64, slot: &str) -> Result<Self> {
        let failed = |error| postgres_error("cannot read table factlib.moves", error);
        let text = |index| row.try_get::<_, String>(index).map_err(failed);
        let unreadable = |what: String| {
            Error::new(ErrorKind::Protocol, format!("table factlib.moves has {what}"))
                .remedy("was it written by another version of factlib?")
        };
        let side = match text(0)?.as_str() {
            "old" => Side::Old,
            "new" => Side::New,
            other => return Err(unreadable(format!("side {other:?}"))),
        };
        let stage = match text(1)?.as_str() {
            "prepared" => Stage::Prepared,
            "finished" => Stage::Finished,
            "closed" => Stage::Closed,
            other => return Err(unreadable(format!("stage {other:?}"))),
        };
        let other_system_id = text(2)?;
        Ok(MoveRecord {
            system_id,
            slot: slot.to_owned(),
            side,
            stage,
            other_system_id: other_system_id
                .parse()
                .map_err(|_| unreadable(format!("system identifier {other_system_id:?}")))?,
            other_server: text(3)?,
            other_slot: text(4)?,
            slot_created: row.try_get(5).map_err(failed)?,
            marker: row.try_get::<_, Option<PgLsn>>(6).map_err(failed)?.map(Lsn::from),
        })
    }

    /// Writes the record in place of an earlier one.
    pub async fn write(&self, client: &Client) -> Result<()> {
        let (system_id, other_id) = (self.system_id.to_string(), self.other_system_id.to_string());
        let (side, stage) = (self.side.name(), self.stage.name());
        let marker = self.marker.map(|marker| PgLsn::from(marker.as_u64()));
        let values: &[&(dyn ToSql + Sync)] = &[
            &system_id,
            &self.slot,
            &side,
            &stage,
            &other_id,
            &self.other_server,
            &self.other_slot,
            &self.slot_created,
            &marker,
        ];
        let failed = |error| postgres_error("cannot write table factlib.moves", error);
        client.execute(WRITE, values).await.map(drop).map_err(failed)
    }

    /// Removes the record of a slot, if there is one.
    pub async fn remove(client: &Client, system_id: u64, slot: &str) -> Result<()> {
        if !exists(client).await? {
            return Ok(());
        }
        let removed = client.execute(REMOVE, &[&system_id.to_string(), &slot]).await;
        let failed = |error| postgres_error("cannot write table factlib.moves", error);
        removed.map(drop).map_err(failed)
    }

    /// Refuses a start on a new server before the hand-over, and on an old one after the move.
    pub fn check_start(&self) -> Result<()> {
        let other = &self.other_server;
        match (self.side, self.stage) {
            (Side::New, Stage::Prepared) => {
                // Transient: the relay stands by, and takes over when the move is finished.
                let what = format!(
                    "the move from {other} is not finished: events of that server have to be \
                     delivered first"
                );
                Err(Error::new(ErrorKind::SlotInUse, what).remedy("run `factlib move finish`"))
            }
            (Side::Old, Stage::Closed) => {
                let what = format!("the relay was moved from this server to {other}");
                Err(Error::new(ErrorKind::PostgresRefused, what).remedy(
                    "set postgres.url to that server; to read this one again, run \
                     `factlib setup --accept-position`",
                ))
            }
            _ => Ok(()),
        }
    }

    /// True if a position of that cluster is one of the other server, where reading ended or ends.
    pub fn is_with(&self, cluster: u64) -> bool {
        self.other_system_id == cluster
    }

    /// Error for a slot that was dropped while the move needs it.
    pub fn slot_is_gone(&self) -> Error {
        let what = format!(
            "slot {} is gone, although the move between this server and {} needs it: events that \
             were committed here may be missing",
            self.slot, self.other_server
        );
        Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT)
    }
}

async fn exists(client: &Client) -> Result<bool> {
    let row = client.query_one(EXISTS, &[]).await;
    let there = row.and_then(|row| row.try_get(0));
    there.map_err(|error| postgres_error("cannot look for table factlib.moves", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(side: Side, stage: Stage) -> MoveRecord {
        MoveRecord {
            system_id: 7,
            slot: "s".into(),
            side,
            stage,
            other_system_id: 8,
            other_server: "db2:5432/shop".into(),
            other_slot: "s".into(),
            slot_created: true,
            marker: None,
        }
    }

    #[test]
    fn a_relay_stands_by_on_the_new_server_until_the_move_is_finished() {
        let error = record(Side::New, Stage::Prepared).check_start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SlotInUse);
        record(Side::New, Stage::Finished).check_start().expect("it takes over");
    }

    #[test]
    fn a_relay_reads_the_old_server_until_the_move_is_closed() {
        for stage in [Stage::Prepared, Stage::Finished] {
            record(Side::Old, stage).check_start().expect("it reads what is left");
        }
        let error = record(Side::Old, Stage::Closed).check_start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PostgresRefused);
    }
}
