//! The server, the slot and the publication, as SQL sees them.

use std::time::Duration;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, types::PgLsn};

use super::postgres_error;
use crate::{Error, ErrorKind, Lsn, Result, config::PostgresConfig};

/// The plugin pgoutput is there from PostgreSQL 10 on.
const OLDEST_SERVER: i32 = 10_00_00;
/// Logical messages reach it from PostgreSQL 14 on.
const OLDEST_WITH_MESSAGES: i32 = 14_00_00;

/// What matters of the server's settings.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    version: i32,
    wal_level: String,
    in_recovery: bool,
    /// Silence after which the server ends a replication connection; none if never.
    wal_sender_timeout: Option<Duration>,
}

impl Server {
    const QUERY: &str = "\
        SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
               pg_is_in_recovery(),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout')";

    /// Asks the server.
    pub async fn read(client: &Client) -> Result<Self> {
        let what = "cannot read the server's settings";
        let row = client
            .query_one(Self::QUERY, &[])
            .await
            .map_err(|error| postgres_error(what, error))?;
        let read = || -> Result<Self, tokio_postgres::Error> {
            let timeout_ms = row.try_get::<_, Option<i64>>(3)?.unwrap_or(0);
            Ok(Server {
                version: row.try_get(0)?,
                wal_level: row.try_get(1)?,
                in_recovery: row.try_get(2)?,
                wal_sender_timeout: u64::try_from(timeout_ms)
                    .ok()
                    .filter(|ms| *ms > 0)
                    .map(Duration::from_millis),
            })
        };
        read().map_err(|error| postgres_error(what, error))
    }

    /// Whether changes that are older than a publication are read with it, too: before
    /// PostgreSQL 18, the publication has to be there at the moment of the change.
    pub fn publications_count_at_once(&self) -> bool {
        self.version >= 18_00_00
    }

    /// Refuses a server that a slot can't be read from, or that has no logical messages
    /// where these are to be read.
    pub fn check(&self, messages: bool) -> Result<()> {
        self.check_version(messages)?;
        self.check_primary()?;
        self.check_wal_level()
    }

    /// Refuses one that is too old.
    pub fn check_version(&self, messages: bool) -> Result<()> {
        let major = self.major();
        if self.version < OLDEST_SERVER {
            let what = format!("PostgreSQL {major} is too old");
            return Err(refused(what).remedy("pgoutput is there from PostgreSQL 10 on"));
        }
        if messages && self.version < OLDEST_WITH_MESSAGES {
            let what = format!("PostgreSQL {major} is too old for logical messages");
            return Err(refused(what).remedy(
                "they are replicated from PostgreSQL 14 on; postgres.source = \"tables\" \
                 relays an outbox table from PostgreSQL 10 on",
            ));
        }
        Ok(())
    }

    /// Refuses a standby.
    pub fn check_primary(&self) -> Result<()> {
        if !self.in_recovery {
            return Ok(());
        }
        // It may be promoted any moment, or another host of the list be the primary.
        let what = "the server is a standby: facts are read from the primary";
        Err(Error::new(ErrorKind::PostgresUnavailable, what)
            .remedy("name all hosts in postgres.url, with target_session_attrs=read-write"))
    }

    /// Refuses one whose WAL can't be decoded.
    pub fn check_wal_level(&self) -> Result<()> {
        if self.wal_level == "logical" {
            return Ok(());
        }
        let what = format!("wal_level is {}, and has to be logical", self.wal_level);
        Err(refused(what)
            .remedy("run ALTER SYSTEM SET wal_level = 'logical' and restart PostgreSQL"))
    }

    /// Interval at which it is told our position.
    pub fn status_interval(&self, settings: &PostgresConfig) -> Duration {
        // A third: one report may be lost in a pause, and the next still comes in time.
        let limit = self.wal_sender_timeout.map_or(Duration::MAX, |timeout| timeout / 3);
        // A report is where a silent server is asked for an answer.
        settings.status_interval.min(limit).min(settings.wal_receiver_timeout / 4)
    }

    /// The version before the dot.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::PostgresRefused, what)
}

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub plugin: Option<String>,
    pub database: Option<String>,
    /// The server has forgotten everything up to here.
    pub confirmed: Lsn,
    /// Why it can never be read again.
    pub lost: Option<String>,
    /// The server process that reads it, or creates it.
    pub active_pid: Option<i32>,
}

impl Slot {
    // Through JSON, because columns came with versions: wal_status (13), conflicting (16),
    // invalidation_reason (17).
    const QUERY: &str = "\
        SELECT plugin::text, database::text, confirmed_flush_lsn,
               coalesce(to_jsonb(s) ->> 'invalidation_reason',
                        CASE WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'conflict with recovery' END,
                        CASE WHEN to_jsonb(s) ->> 'wal_status' = 'lost' THEN 'wal_removed' END),
               active_pid
        FROM pg_replication_slots s WHERE slot_name = $1";

    /// Looks the slot up.
    pub async fn read(client: &Client, name: &str) -> Result<Option<Self>> {
        let failed = |error| postgres_error(format!("cannot look up slot {name}"), error);
        let Some(row) = client.query_opt(Self::QUERY, &[&name]).await.map_err(failed)? else {
            return Ok(None);
        };
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Slot {
                plugin: row.try_get(0)?,
                database: row.try_get(1)?,
                confirmed: lsn(row.try_get(2)?),
                lost: row.try_get(3)?,
                active_pid: row.try_get(4)?,
            })
        };
        read().map(Some).map_err(failed)
    }

    /// Creates the slot; its answer waits for the transactions that run now.
    pub async fn create(client: &Client, name: &str, database: &str) -> Result<Self> {
        let statement = "SELECT lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')";
        let failed = |error| postgres_error(format!("cannot create slot {name}"), error);
        let row = client.query_one(statement, &[&name]).await.map_err(failed)?;
        Ok(Slot {
            plugin: Some("pgoutput".into()),
            database: Some(database.into()),
            confirmed: lsn(row.try_get(0).map_err(failed)?),
            lost: None,
            active_pid: None,
        })
    }

    /// True once it has a position. A slot that is being created has none until all transactions
    /// have ended that were open when its creation began.
    pub fn is_ready(&self) -> bool {
        self.confirmed > Lsn::ZERO || self.lost.is_some() || self.plugin.is_none()
    }

    /// The error for one that has none yet.
    pub fn not_ready(&self, name: &str) -> Error {
        let by = self.active_pid.map(|pid| format!(" by PID {pid}")).unwrap_or_default();
        let what = format!("slot {name} is still being created{by}");
        Error::new(ErrorKind::SlotInUse, what)
    }

    /// Drops the slot.
    pub async fn drop(client: &Client, name: &str) -> Result<()> {
        let failed = |error| postgres_error(format!("cannot drop slot {name}"), error);
        client.execute("SELECT pg_drop_replication_slot($1)", &[&name]).await.map_err(failed)?;
        Ok(())
    }

    /// Has the server forget everything up to `to`, and answers how far it went.
    pub async fn advance(client: &Client, name: &str, to: Lsn) -> Result<Lsn> {
        let statement = "SELECT end_lsn FROM pg_replication_slot_advance($1, $2)";
        let failed = |error| postgres_error(format!("cannot advance slot {name} to {to}"), error);
        let to = PgLsn::from(to.as_u64());
        let row = client.query_one(statement, &[&name, &to]).await.map_err(failed)?;
        Ok(lsn(row.try_get(0).map_err(failed)?))
    }
}

fn lsn(value: Option<PgLsn>) -> Lsn {
    value.map_or(Lsn::ZERO, |lsn| Lsn::new(lsn.into()))
}

/// Does the publication exist?
pub(crate) async fn publication_exists(client: &Client, name: &str) -> Result<bool> {
    let statement = "SELECT FROM pg_publication WHERE pubname = $1";
    let failed = |error| postgres_error(format!("cannot look up publication {name}"), error);
    Ok(client.query_opt(statement, &[&name]).await.map_err(failed)?.is_some())
}

/// The statement that creates the publication, empty: logical messages need no table in it.
pub(crate) fn publication_sql(name: &str) -> String {
    format!("CREATE PUBLICATION {}", escape_identifier(name))
}
