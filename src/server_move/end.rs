//! One of the two servers of a move, with a session on it.

use std::sync::Arc;

use factlib_postgres::{Server, Slot, SqlSession, SystemId};
use slog::Logger;
use tokio_postgres::{Row, types::ToSql};

use super::{Servers, refused};
use crate::{
    Error, ErrorKind, Result,
    config::{Config, OutboxTable},
    outbox::Catalog,
    postgres::{postgres_error, sql_session},
    startup::{MoveRecord, Side, Stage, Startup},
};

/// One of the two servers.
pub(super) struct End {
    pub side: Side,
    pub config: Arc<Config>,
    pub startup: Startup,
    pub client: SqlSession,
    pub system: SystemId,
    pub server: Server,
}

/// Both servers.
pub(super) struct Ends {
    pub old: End,
    pub new: End,
}

/// Tables and their partitions. $1 and $2: the schemas and names.
const FAMILY: &str = "\
WITH RECURSIVE family AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS t(schema, name)
    JOIN pg_namespace n ON n.nspname = t.schema::name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name::name
    UNION
    SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
)
SELECT oid FROM family";

impl End {
    pub async fn connect(config: &Config, side: Side, log: &Logger) -> Result<Self> {
        config.validate()?;
        let config = Arc::new(config.clone());
        let startup = Startup::new(&config)?;
        let limit = config.postgres.connect_timeout;
        let client = sql_session(&startup.info, limit, log).await?;
        let server = Server::read(&client).await?;
        if server.is_in_recovery() {
            let what = format!("{} is a standby", startup.info.describe());
            return Err(refused(what).remedy("a move is between primaries: name those"));
        }
        let system = startup.replication(limit, log).await?.identify_system().await?;
        Ok(End { side, config, startup, client, system, server })
    }

    /// Address and database.
    pub fn address(&self) -> String {
        self.startup.info.describe()
    }

    /// Names the server in lines for the operator.
    pub fn name(&self) -> String {
        format!("the {} server ({})", self.side.name(), self.address())
    }

    pub fn slot_name(&self) -> &str {
        &self.config.postgres.slot
    }

    pub async fn slot(&self) -> Result<Option<Slot>> {
        Ok(Slot::read(&self.client, self.slot_name()).await?)
    }

    /// Returns the slot, which has to be there and readable.
    pub async fn usable_slot(&self) -> Result<Slot> {
        let name = self.slot_name();
        let Some(slot) = self.slot().await? else {
            return Err(refused(format!("slot {name} does not exist on {}", self.name()))
                .remedy("is postgres.slot correct, and the URL that of the right server?"));
        };
        if let Some(reason) = &slot.lost {
            let what = format!(
                "slot {name} of {} was invalidated ({reason}): events committed after {} are missing",
                self.name(),
                slot.confirmed
            );
            return Err(Error::new(ErrorKind::PositionLost, what)
                .remedy("see docs/errors.md on PositionLost"));
        }
        Ok(slot)
    }

    pub async fn record(&self) -> Result<Option<MoveRecord>> {
        MoveRecord::read(&self.client, self.system.system_id, self.slot_name()).await
    }

    pub async fn remove_record(&self) -> Result<()> {
        MoveRecord::remove(&self.client, self.system.system_id, self.slot_name()).await
    }

    pub async fn query(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let rows = self.client.query(query, parameters).await;
        rows.map_err(|error| postgres_error(format!("cannot ask {}", self.name()), error))
    }

    pub fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
        &self,
        row: &'a Row,
        index: usize,
    ) -> Result<T> {
        let value = row.try_get(index);
        value.map_err(|error| postgres_error(format!("cannot ask {}", self.name()), error))
    }

    /// Returns the oids of the outbox tables and of their partitions.
    pub async fn outbox_oids(&self) -> Result<Vec<u32>> {
        let configured = self.config.outbox_tables();
        let tables = Catalog::read(&self.client, "", &configured).await?.outbox_tables(&configured);
        let names: Vec<_> = tables.iter().map(OutboxTable::qualified).collect();
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            names.iter().map(|name| (&*name.schema, &*name.name)).unzip();
        self.oids(&schemas, &names).await
    }

    /// Returns the oids of tables and of their partitions.
    pub async fn oids(&self, schemas: &[&str], names: &[&str]) -> Result<Vec<u32>> {
        let rows = self.query(FAMILY, &[&schemas, &names]).await?;
        rows.iter().map(|row| self.column(row, 0)).collect()
    }

    /// The first column of a query's only row.
    pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
        &self,
        query: &str,
    ) -> Result<T> {
        let rows = self.query(query, &[]).await?;
        let row = rows.first().ok_or_else(|| {
            Error::new(ErrorKind::Protocol, format!("{} gave no row", self.name()))
        })?;
        self.column(row, 0)
    }
}

impl Ends {
    /// Connects to both servers, which must not be the same.
    pub async fn connect(servers: &Servers, log: &Logger) -> Result<Self> {
        let old = End::connect(&servers.old, Side::Old, log).await?;
        let new = End::connect(&servers.new, Side::New, log).await?;
        let ends = Ends { old, new };
        ends.check_distinct().await?;
        Ok(ends)
    }

    async fn check_distinct(&self) -> Result<()> {
        let Ends { old, new } = self;
        if old.system.system_id != new.system.system_id {
            return Ok(());
        }
        const STARTED: &str = "SELECT pg_postmaster_start_time()::text";
        let started = (old.value::<String>(STARTED).await?, new.value::<String>(STARTED).await?);
        if started.0 == started.1 {
            let what = format!("{} and {} are the same server", old.address(), new.address());
            return Err(Error::new(ErrorKind::Config, what)
                .remedy("name the other server with --to or --from"));
        }
        if old.slot_name() == new.slot_name() {
            let what = format!(
                "{} is a physical copy of {}: saved positions of the two can't be told apart",
                new.address(),
                old.address()
            );
            return Err(Error::new(ErrorKind::Config, what)
                .remedy("give the slot on the new server another name, with --other-slot"));
        }
        Ok(())
    }

    /// The record that this end of the move has, at `stage`.
    pub fn record_of(&self, side: Side, stage: Stage, slot_created: bool) -> MoveRecord {
        let (here, other) = match side {
            Side::Old => (&self.old, &self.new),
            Side::New => (&self.new, &self.old),
        };
        MoveRecord {
            system_id: here.system.system_id,
            slot: here.slot_name().to_owned(),
            side,
            stage,
            other_system_id: other.system.system_id,
            other_server: other.address(),
            other_slot: other.slot_name().to_owned(),
            slot_created,
            marker: None,
        }
    }

    /// Returns the records of this move on the old and the new server, which must both be there.
    pub async fn records(&self) -> Result<(MoveRecord, MoveRecord)> {
        let (old, new) = (self.old.record().await?, self.new.record().await?);
        let is_ours = |record: &MoveRecord, side: Side| {
            let wanted = self.record_of(side, record.stage, false);
            record.side == side
                && record.is_with(wanted.other_system_id)
                && record.other_slot == wanted.other_slot
        };
        match (old, new) {
            (Some(old), Some(new)) if is_ours(&old, Side::Old) && is_ours(&new, Side::New) => {
                Ok((old, new))
            }
            _ => {
                let what = format!(
                    "no move from {} to {} is prepared",
                    self.old.address(),
                    self.new.address()
                );
                Err(Error::new(ErrorKind::Config, what).remedy(
                    "run `factlib move prepare`; `factlib move status` shows what there is",
                ))
            }
        }
    }
}
